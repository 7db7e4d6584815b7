/**
 * The reason why a body ended before its client had sent all of it.
 *
 * - `left`: the connection was closed
 * - `stalled`: no bytes arrived for too long
 * - `replaced`: another request continues the upload
 * - `cancelled`: another request ended the upload
 */
export type BodyCut = "left" | "stalled" | "replaced" | "cancelled";

/** The body is incomplete; the bytes that were read before the cut are right. */
export class BrokenUploadBody extends Error {
  readonly reason: BodyCut;

  constructor(reason: BodyCut) {
    super(`the body of an upload is incomplete: ${reason}`);
    this.name = "BrokenUploadBody";
    this.reason = reason;
  }
}

/** The body of a request, received at the pace of the storage. */
export interface UploadBody {
  /** The announced size; undefined: unknown before the end. */
  readonly lengthBytes: number | undefined;
  /** Whether the client has closed the connection. */
  readonly hasLeft: boolean;
  /** When bytes last arrived, by the monotonic clock. */
  readonly progressedAtMs: number;
  /**
   * Returns all chunks that have arrived since the last call, and waits for the first. More are
   * received in the background, up to a bound.
   *
   * @returns undefined at the end
   * @throws BrokenUploadBody
   */
  read(): Promise<readonly Uint8Array[] | undefined>;
  /** Ends the body early; {@link read} rejects from now on. */
  cut(reason: BodyCut): void;
}
