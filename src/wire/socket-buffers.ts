import type { Socket } from "node:net";

/*
 * Buffers that sockets read into, recycled. Node allocates a buffer for each read of 64 KiB, which is
 * cold memory for the processor's caches and work for the collector. A buffer is returned when its bytes
 * are no longer used; one that is never returned is collected like any other. Only plain-HTTP sockets
 * read this way: Node decrypts TLS one record at a time into buffers of its own.
 */

/** The largest read of a socket: it fits into the second-level cache. */
export const SOCKET_READ_BYTES = 256 * 1024;

/** Each connection holds the buffer of its next read; all of them share this much. */
const ALL_READ_BYTES = 16 * 1024 * 1024;
const MIN_READ_BYTES = 16 * 1024;

/** As many as one download uses at a time. */
const MAX_SPARE = 20;

const spare: Buffer[] = [];
/** The bytes that a read put into each buffer in use. */
const readBytes = new WeakMap<ArrayBufferLike, number>();
/** The buffer whose last read was copied out: the same socket reads into it again. */
let kept: Uint8Array | undefined;
/** The current size of a read. */
let sizeNow = SOCKET_READ_BYTES;

/** `onread` of a socket that is nevertheless read as a stream. */
export const readIntoSpareBuffers = {
  buffer(): Uint8Array {
    const next = kept?.length === sizeNow ? kept : spare.pop();
    kept = undefined;
    return next ?? Buffer.allocUnsafeSlow(sizeNow);
  },
  /** Called with the socket as `this`, immediately before `buffer` is called for the next read. */
  callback(this: Socket, sizeBytes: number, buffer: Uint8Array): boolean {
    // Bytes in memory never occupy more than twice their size.
    if (sizeBytes < buffer.length / 2) {
      const bytes = Buffer.allocUnsafeSlow(sizeBytes);
      bytes.set(buffer.subarray(0, sizeBytes));
      const wantsMore = this.push(bytes);
      kept = buffer;
      return wantsMore;
    }
    readBytes.set(buffer.buffer, sizeBytes);
    return this.push(buffer.subarray(0, sizeBytes));
  },
};

/**
 * Returns the buffer of a read for reuse. The caller must hold the whole read and keep no view of it.
 *
 * @returns false if the bytes are not a whole read of this module; the collector frees them then
 */
export function giveSocketBuffer(bytes: Buffer): boolean {
  const { buffer } = bytes;
  if (bytes.byteOffset !== 0 || readBytes.get(buffer) !== bytes.length) {
    return false;
  }
  readBytes.delete(buffer);
  if (spare.length < MAX_SPARE && buffer.byteLength === sizeNow) {
    spare.push(Buffer.from(buffer));
  }
  return true;
}

/** Divides the memory of read buffers among the running downloads. */
export function shareSocketBuffers(downloads: number): void {
  const share = ALL_READ_BYTES / Math.max(1, downloads);
  const size = Math.max(
    MIN_READ_BYTES,
    Math.min(SOCKET_READ_BYTES, 2 ** Math.floor(Math.log2(share))),
  );
  if (size === sizeNow) return;
  sizeNow = size;
  dropSpareBuffers();
}

/** Frees the spare buffers, which an idle mirror does not need. */
export function dropSpareBuffers(): void {
  spare.length = 0;
}
