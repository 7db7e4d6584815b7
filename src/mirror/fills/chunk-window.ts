/** What a chunk costs beside its bytes, so that a body in tiny chunks is bounded too. */
const CHUNK_OVERHEAD_BYTES = 512;

/** Parts of one {@link ChunkWindow.slice}: enough for a read of 256 KiB in chunks of a socket's size. */
const MAX_PARTS = 64;

/**
 * The newest run of a body's chunks, kept in memory: the readers at the head are served from it
 * and the writer takes from it. Positions count from the start of the blob.
 */
export class ChunkWindow {
  #chunks: Buffer[] = [];
  /** Position of each chunk's first byte, beside {@link #chunks}. */
  #starts: number[] = [];
  /** Chunks before this index are dropped; the arrays are cut when half of them is. */
  #first = 0;
  #end: number;
  #costBytes = 0;

  constructor(start: number) {
    this.#end = start;
  }

  /** Position of the first byte that is held; {@link end} when none is. */
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

  /** Position after the oldest chunk that is held. */
  get oldestEnd(): number {
    return this.#starts[this.#first + 1] ?? this.#end;
  }

  /** @returns the chunk that is held no longer */
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
   * Bytes from `position`, which is held, up to `limit`, in parts of together at most `maxBytes`
   * (one part at least) and not more than `maxParts`.
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

  /** The chunk that holds the position: the last one that starts at or before it. */
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
