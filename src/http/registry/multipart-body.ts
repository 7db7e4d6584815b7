import { randomBytes } from "node:crypto";
import type { Body, RangedBody } from "../../bodies/body.ts";
import { type ByteRange, formatContentRange } from "../../oci/range.ts";

interface Part {
  readonly head: Buffer;
  readonly range: ByteRange;
}

/**
 * Several ranges of a blob in one body.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-14.6
 */
export class MultipartBody implements Body {
  /** The content type of the whole body. */
  readonly contentType: string;
  readonly lengthBytes: number;
  readonly #body: RangedBody;
  readonly #parts: Part[];
  readonly #end: Buffer;
  /** The head of a part was read; its bytes follow. */
  #isInPart = false;
  #isEnded = false;

  /** @param body owned by this body, and closed with it */
  constructor(
    body: RangedBody,
    blob: {
      readonly ranges: readonly ByteRange[];
      readonly sizeBytes: number;
      readonly mediaType: string;
    },
  ) {
    this.#body = body;
    // Random, so that no blob can contain it.
    const boundary = randomBytes(16).toString("hex");
    this.contentType = `multipart/byteranges; boundary=${boundary}`;
    this.#parts = blob.ranges.map((range, at) => ({
      range,
      head: Buffer.from(
        `${at === 0 ? "" : "\r\n"}--${boundary}\r\n` +
          `Content-Type: ${blob.mediaType}\r\n` +
          `Content-Range: ${formatContentRange(range, blob.sizeBytes)}\r\n\r\n`,
        "latin1",
      ),
    }));
    this.#end = Buffer.from(`\r\n--${boundary}--\r\n`, "latin1");
    this.lengthBytes = this.#parts.reduce(
      (sum, { head, range }) =>
        sum + head.length + range.last - range.first + 1,
      this.#end.length,
    );
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    if (this.#isInPart) {
      const read = await this.#body.read();
      if (read !== undefined) return read;
      this.#isInPart = false;
    }
    const part = this.#parts.shift();
    if (part !== undefined) {
      this.#body.setRange(part.range.first, part.range.last);
      this.#isInPart = true;
      return [part.head];
    }
    if (this.#isEnded) return undefined;
    this.#isEnded = true;
    return [this.#end];
  }

  sendTo(socket: number, maxBytes: number): number {
    return this.#isInPart ? (this.#body.sendTo?.(socket, maxBytes) ?? 0) : 0;
  }

  close(): void {
    this.#body.close();
  }
}
