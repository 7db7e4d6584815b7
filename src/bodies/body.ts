/**
 * The last bytes of a blob, which readers get only after the digest and the size are verified: without
 * them no client can accept a wrong body as complete.
 */
export const TAIL_BYTES = 64 * 1024;

/** The body of an answer; its sender pulls the bytes. */
export interface Body {
  /**
   * Returns the next bytes, in one or more parts that stay unchanged until the next call; undefined
   * after the announced end.
   *
   * @throws BrokenBody if the rest is unavailable or must not be sent
   */
  read(): Promise<readonly Uint8Array[] | undefined>;
  /**
   * Sends the next bytes to a socket of this process, given by its descriptor, bypassing its stream,
   * which must be empty. Does not wait. Must not be called during a {@link read}, or while its parts
   * are in use.
   *
   * @returns the number of bytes that the socket accepted; 0 if the next bytes must be read
   */
  sendTo?(socket: number, maxBytes: number): number;
  /** Releases the resources of the body; called once, also after its end. */
  close(): void;
}

/** A body of several parts of a blob, sent one after the other. */
export interface RangedBody extends Body {
  /**
   * Continues with another part, whose offsets are inclusive. Called before the first read or after
   * the end of the previous part. If the blob is being fetched, each part must start after the
   * previous one.
   */
  setRange(first: number, last: number): void;
}

/** The rest of a body is unavailable: the connection is closed before the announced length. */
export class BrokenBody extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "BrokenBody";
  }
}
