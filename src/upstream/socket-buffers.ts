import type { Socket } from "node:net";

/*
 * Buffers that sockets read into, used again and again. Node gives each read of 64 KiB a buffer of its
 * own, which is new memory to the processor's caches and work for the collector. Whoever is done with a
 * read gives its buffer back; one that is never given back is collected like any other.
 */

/** What one read of a socket takes at most: it stays in the second-level cache. */
export const SOCKET_READ_BYTES = 256 * 1024;

/** Less than that is copied out, so that what is held in memory never takes more than twice its size. */
const COPIED_BELOW_BYTES = SOCKET_READ_BYTES / 2;

/** As many as one download has in hand. */
const MAX_SPARE = 20;

const spare: Buffer[] = [];
/** What a read put into a buffer that was handed out. */
const readBytes = new WeakMap<ArrayBufferLike, number>();
/** The last read was copied out of it: the same socket goes on with it. */
let kept: Uint8Array | undefined;

/** `onread` of a socket that is read as a stream all the same. */
export const readIntoSpareBuffers = {
  buffer(): Uint8Array {
    const next = kept ?? spare.pop();
    kept = undefined;
    return next ?? Buffer.allocUnsafeSlow(SOCKET_READ_BYTES);
  },
  /** Called with the socket as `this`, and right before `buffer` is asked for the next one. */
  callback(this: Socket, sizeBytes: number, buffer: Uint8Array): boolean {
    if (sizeBytes < COPIED_BELOW_BYTES) {
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
  if (spare.length < MAX_SPARE) spare.push(Buffer.from(buffer));
  return true;
}

/** For the next download they are made anew: an idle mirror has better use for the memory. */
export function dropSpareBuffers(): void {
  spare.length = 0;
}
