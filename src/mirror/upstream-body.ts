import type { Readable } from "node:stream";
import { type Body, BrokenBody } from "./body.ts";

/**
 * A range straight from the upstream, beside a fill that is far behind it. It is not verified: no
 * digest covers a part of a blob, and it is never the whole of one.
 */
export class UpstreamBody implements Body {
  readonly #body: Readable;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #onClose: () => void;
  #missingBytes: number;
  #isClosed = false;

  constructor(body: Readable, sizeBytes: number, onClose: () => void) {
    this.#body = body;
    this.#chunks = body[Symbol.asyncIterator]();
    this.#missingBytes = sizeBytes;
    this.#onClose = onClose;
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    if (this.#isClosed || this.#missingBytes === 0) return undefined;
    let next: IteratorResult<Buffer>;
    try {
      next = await this.#chunks.next();
    } catch (cause) {
      throw new BrokenBody("the upstream's range broke", { cause });
    }
    if (next.done === true || next.value.length > this.#missingBytes) {
      throw new BrokenBody("the upstream's range has another length");
    }
    this.#missingBytes -= next.value.length;
    return [next.value];
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#body.destroy();
    this.#onClose();
  }
}
