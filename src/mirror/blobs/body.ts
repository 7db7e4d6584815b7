/** Bytes on their way to a client, pulled by whoever sends them. */
export interface Body {
  /**
   * The next bytes, in one or more parts that stay untouched until the next call; undefined when
   * all that was promised has been given.
   *
   * @throws BrokenBody when the rest can't be had or must not be given
   */
  read(): Promise<readonly Uint8Array[] | undefined>;
  /**
   * Hands the next bytes to a socket of this process, named by its descriptor, past its stream,
   * which must be empty. Waits for nothing; never called during a {@link read}, whose parts are
   * done with.
   *
   * @returns how many the socket took; 0 where the next bytes must be read
   */
  sendTo?(socket: number, maxBytes: number): number;
  /** Lets go of what the body holds; called once, also after its end. */
  close(): void;
}

/** A body of parts of a blob, one after the other. */
export interface RangedBody extends Body {
  /**
   * Goes on with another part, whose offsets are inclusive, before the first read or after the end
   * of the part before. Of a blob that is on its way, each part lies after the one before.
   */
  setRange(first: number, last: number): void;
}

/** The rest of a body will not come: the connection is ended before the announced length. */
export class BrokenBody extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "BrokenBody";
  }
}
