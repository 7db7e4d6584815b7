/** The memory of a chunk in addition to its bytes; it bounds a body in tiny chunks. */
const CHUNK_OVERHEAD_BYTES = 512;

/** Bound of the parts of one {@link ChunkWindow.slice}: enough for 256 KiB in chunks of typical size. */
const MAX_PARTS = 64;

/**
 * The newest chunks of a body, in memory: readers near the newest byte and the writer to the storage use
 * it. Positions count from the start of the blob.
 */
export class ChunkWindow {
  #chunks: Buffer[] = [];
  /** Position of the first byte of each chunk in {@link #chunks}. */
  #starts: number[] = [];
  /** Chunks before this index are dropped; the arrays are cut when half of their entries are. */
  #first = 0;
  #end: number;
  #costBytes = 0;

  constructor(start: number) {
    this.#end = start;
  }

  /** Position of the first byte in the window; {@link end} if it is empty. */
  get start(): number {
    return this.#starts[this.#first] ?? this.#end;
  }

  /** Position after the last byte. */
  get end(): number {
    return this.#end;
  }

  get costBytes(): number {
    return this.#costBytes;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#starts.push(this.#end);
    this.#end += chunk.length;
    this.#costBytes += chunk.length + CHUNK_OVERHEAD_BYTES;
  }

  /** Position after the oldest chunk. */
  get oldestEnd(): number {
    return this.#starts[this.#first + 1] ?? this.#end;
  }

  /** Drops the oldest chunk and returns it. */
  dropOldest(): Buffer | undefined {
    const chunk = this.#chunks[this.#first];
    if (chunk === undefined) return undefined;
    this.#costBytes -= chunk.length + CHUNK_OVERHEAD_BYTES;
    this.#first++;
    if (this.#first * 2 >= this.#chunks.length) {
      this.#chunks = this.#chunks.slice(this.#first);
      this.#starts = this.#starts.slice(this.#first);
      this.#first = 0;
    } else {
      this.#chunks[this.#first - 1] = EMPTY;
    }
    return chunk;
  }

  /**
   * Returns bytes from `position`, which must be in the window, up to `limit`: at least one part, at
   * most `maxParts` parts, and at most `maxBytes` in total.
   */
  slice(
    position: number,
    limit: number,
    maxBytes: number,
    maxParts = MAX_PARTS,
  ): Buffer[] {
    const parts: Buffer[] = [];
    const last = Math.min(limit, position + maxBytes);
    let index = this.#indexOf(position);
    let at = position;
    while (at < last && parts.length < maxParts) {
      const chunk = this.#chunks[index];
      const start = this.#starts[index];
      if (chunk === undefined || start === undefined) break;
      const end = Math.min(start + chunk.length, last);
      parts.push(
        at === start && end === start + chunk.length
          ? chunk
          : chunk.subarray(at - start, end - start),
      );
      at = end;
      index++;
    }
    return parts;
  }

  /** Finds the chunk of a position: the last chunk that starts at or before it. */
  #indexOf(position: number): number {
    let low = this.#first;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#starts[middle] ?? Infinity) <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

const EMPTY = Buffer.alloc(0);
