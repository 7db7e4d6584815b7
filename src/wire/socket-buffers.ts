import type { Socket } from "node:net";

/*
 * Buffers that sockets read into, used again and again. Node gives each read of 64 KiB a buffer of its
 * own, which is new memory to the processor's caches and work for the collector. Whoever is done with a
 * read gives its buffer back; one that is never given back is collected like any other.
 */

/** What one read of a socket takes at most: it stays in the second-level cache. */
export const SOCKET_READ_BYTES = 256 * 1024;

/** Each connection keeps the buffer that its next read goes to: of many, each has less. */
const ALL_READ_BYTES = 16 * 1024 * 1024;
const MIN_READ_BYTES = 16 * 1024;

/** As many as one download has in hand. */
const MAX_SPARE = 20;

const spare: Buffer[] = [];
/** What a read put into a buffer that was handed out. */
const readBytes = new WeakMap<ArrayBufferLike, number>();
/** The last read was copied out of it: the same socket goes on with it. */
let kept: Uint8Array | undefined;
/** What one read takes at most now. */
let sizeNow = SOCKET_READ_BYTES;

/** `onread` of a socket that is read as a stream all the same. */
export const readIntoSpareBuffers = {
  buffer(): Uint8Array {
    const next = kept?.length === sizeNow ? kept : spare.pop();
    kept = undefined;
    return next ?? Buffer.allocUnsafeSlow(sizeNow);
  },
  /** Called with the socket as `this`, and right before `buffer` is asked for the next one. */
  callback(this: Socket, sizeBytes: number, buffer: Uint8Array): boolean {
    // So that what is held in memory never takes more than twice its size.
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
 * Gives back what a socket read: the caller has no view of these bytes left, and got all that the read
 * brought, so that nobody else has.
 *
 * @returns false where they are no whole read of ours; the collector takes them then
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

/** So many downloads share the memory that sockets read into. */
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

/** For the next download they are made anew: an idle mirror has better use for the memory. */
export function dropSpareBuffers(): void {
  spare.length = 0;
}
