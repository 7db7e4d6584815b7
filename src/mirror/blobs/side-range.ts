import { setTimeout as delay } from "node:timers/promises";
import type { ByteRange } from "../../oci/range.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../../wire/deadline.ts";
import type { OpenBlobOptions, UpstreamBlob } from "../../upstream/client.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { type Body, BrokenBody } from "../../bodies/body.ts";
import { chooseResume } from "../fills/fill-resume.ts";

/** A body that delivered this many bytes counts as progress and resets the retry counter. */
const FRUITFUL_BYTES = 64 * 1024;

export interface SideRangeOptions {
  readonly range: ByteRange;
  /** Of the whole blob. */
  readonly sizeBytes: number;
  open(options: OpenBlobOptions): Promise<UpstreamBlob>;
  /** Called once, after the last connection has ended. */
  onClose(): void;
}

/**
 * Opens a range directly from the upstream while a fill of the same blob has not reached it. The
 * bytes are not verified: no digest covers a part of a blob, and the range is never the whole blob.
 *
 * @returns undefined if the upstream does not send the range; the fill will reach it
 */
export async function openSideRange(
  options: SideRangeOptions,
): Promise<Body | undefined> {
  const side = new SideRange(options);
  try {
    await side.dial();
    return side;
  } catch {
    side.close();
    return undefined;
  }
}

/** A range that is resumed where it breaks off, at another endpoint first. */
class SideRange implements Body {
  readonly #options: SideRangeOptions;
  readonly #abort = new AbortController();
  readonly #avoid = new Set<string>();
  #position: number;
  #body: UpstreamBlob["body"] | undefined;
  #chunks: AsyncIterator<Buffer> | undefined;
  #endpoint: string | undefined;
  #dialledAt: number;
  #dials = 0;
  #fruitless = 0;

  constructor(options: SideRangeOptions) {
    this.#options = options;
    this.#position = options.range.first;
    this.#dialledAt = this.#position;
  }

  /** Requests the missing bytes. @throws UpstreamError */
  async dial(): Promise<void> {
    const { range, sizeBytes } = this.#options;
    this.#dials++;
    this.#dialledAt = this.#position;
    this.#endpoint = undefined;
    const blob = await withDeadline(
      ANSWER_DEADLINE_MS,
      (signal) =>
        this.#options.open({
          offset: this.#position,
          lastByte: range.last,
          avoid: this.#avoid,
          signal,
        }),
      this.#abort.signal,
    );
    const isPart =
      blob.status === 206 &&
      blob.offset === this.#position &&
      (blob.sizeBytes ?? sizeBytes) === sizeBytes;
    if (!isPart || this.#abort.signal.aborted) {
      blob.body.destroy();
      this.#avoid.add(blob.endpoint);
      throw new UpstreamError(
        "bad-response",
        "got another range than requested",
        {
          upstream: blob.endpoint,
        },
      );
    }
    this.#endpoint = blob.endpoint;
    this.#body = blob.body;
    this.#chunks = (blob.body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    const end = this.#options.range.last + 1;
    while (!this.#abort.signal.aborted && this.#position < end) {
      try {
        const chunk = await this.#next(end);
        this.#position += chunk.length;
        return [chunk];
      } catch (error) {
        await this.#pauseAfter(error);
      }
    }
    return undefined;
  }

  /** @throws UpstreamError if the body broke off, or another could not be opened */
  async #next(end: number): Promise<Buffer> {
    if (this.#chunks === undefined) await this.dial();
    const next = await this.#chunks?.next();
    if (next === undefined || next.done === true) {
      throw new UpstreamError("interrupted", "the range ended early", {
        upstream: this.#endpoint ?? "",
      });
    }
    if (next.value.length > end - this.#position) {
      throw new UpstreamError("bad-response", "got more bytes than requested", {
        upstream: this.#endpoint ?? "",
      });
    }
    return next.value;
  }

  /** @throws BrokenBody if another attempt would not help */
  async #pauseAfter(error: unknown): Promise<void> {
    this.#drop();
    this.#fruitless =
      this.#position - this.#dialledAt >= FRUITFUL_BYTES
        ? 1
        : this.#fruitless + 1;
    const delayMs = chooseResume(error, {
      fruitless: this.#fruitless,
      dials: this.#dials,
      hasReaders: true,
    });
    if (delayMs === undefined) {
      throw new BrokenBody("the upstream's range broke off", { cause: error });
    }
    if (this.#endpoint !== undefined) this.#avoid.add(this.#endpoint);
    const { signal } = this.#abort;
    await delay(delayMs, undefined, { signal }).catch(() => {});
  }

  close(): void {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort(new BrokenBody("no client reads the range"));
    this.#drop();
    this.#options.onClose();
  }

  #drop(): void {
    this.#body?.destroy();
    this.#body = undefined;
    this.#chunks = undefined;
  }
}
