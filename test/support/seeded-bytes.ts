import { createCipheriv, createHash } from "node:crypto";

/** Bytes that can be read anywhere without holding the rest. */
export interface ByteSource {
  readonly sizeBytes: number;
  /** Fewer than `length` bytes at the end; the buffer is the caller's. */
  read(offset: number, length: number): Buffer;
}

const BLOCK_BYTES = 16;

/**
 * Bytes that look random, are the same for the same seed, and are made where they are read:
 * the key stream of AES-CTR, which can be entered at any block.
 */
export function seededBytes(seed: string, sizeBytes: number): ByteSource {
  const key = createHash("sha256").update(seed).digest().subarray(0, 16);
  return {
    sizeBytes,
    read(offset, length) {
      const wanted = Math.max(0, Math.min(length, sizeBytes - offset));
      const counter = Buffer.alloc(BLOCK_BYTES);
      counter.writeBigUInt64BE(BigInt(Math.floor(offset / BLOCK_BYTES)), 8);
      const skipped = offset % BLOCK_BYTES;
      const cipher = createCipheriv("aes-128-ctr", key, counter);
      return cipher.update(Buffer.alloc(skipped + wanted)).subarray(skipped);
    },
  };
}

export function bufferSource(bytes: Buffer): ByteSource {
  return {
    sizeBytes: bytes.length,
    read: (offset, length) =>
      Buffer.from(bytes.subarray(offset, offset + length)),
  };
}

/** Reads a source from `start` up to, not including, `end`, in parts of at most `partBytes`. */
export function* readParts(
  source: ByteSource,
  start = 0,
  end: number = source.sizeBytes,
  partBytes = 262_144,
): Generator<Buffer> {
  for (let at = start; at < end;) {
    const part = source.read(at, Math.min(partBytes, end - at));
    if (part.length === 0) return;
    yield part;
    at += part.length;
  }
}
