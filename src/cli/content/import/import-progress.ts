import type { Readable } from "node:stream";
import type { CommandOutput } from "../../declare-command.ts";
import { durationText, sizeText } from "../../output/amounts.ts";

const SHOW_EVERY_MS = 200;
const CLEAR_LINE = "\r\u001B[K";

/** One line on a terminal that shows how much of a bundle is read; elsewhere nothing is shown. */
export class ImportProgress {
  readonly #stream: CommandOutput;
  readonly #totalBytes: number | undefined;
  readonly #nowMs: () => number;
  readonly #startedAtMs: number;
  #readBytes = 0;
  #shownAtMs = -SHOW_EVERY_MS;
  #isShown = false;

  /** @param totalBytes undefined: unknown */
  constructor(
    stream: CommandOutput,
    totalBytes: number | undefined,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#stream = stream;
    this.#totalBytes = totalBytes;
    this.#nowMs = nowMs;
    this.#startedAtMs = nowMs();
  }

  /** Counts the bytes of a body while they are read. */
  async *count(body: Readable): AsyncGenerator<Uint8Array> {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      this.#readBytes += chunk.length;
      this.#show();
      yield chunk;
    }
    this.#draw("verified; recording the images");
  }

  /** Removes the line. */
  end(): void {
    if (this.#isShown) this.#stream.write(CLEAR_LINE);
    this.#isShown = false;
  }

  #show(): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#shownAtMs < SHOW_EVERY_MS) return;
    this.#shownAtMs = nowMs;
    const seconds = Math.max(0.001, (nowMs - this.#startedAtMs) / 1_000);
    const perSecond = this.#readBytes / seconds;
    const rate = `${sizeText(perSecond)}/s`;
    const total = this.#totalBytes;
    if (total === undefined || total === 0) {
      this.#draw(`${sizeText(this.#readBytes)}, ${rate}`);
      return;
    }
    const share = Math.min(1, this.#readBytes / total);
    const leftMs = (Math.max(0, total - this.#readBytes) / perSecond) * 1_000;
    this.#draw(
      `${Math.floor(share * 100)} %  ${sizeText(this.#readBytes)} of ${sizeText(total)}, ${rate}, about ${durationText(leftMs)} left`,
    );
  }

  #draw(text: string): void {
    if (this.#stream.isTTY !== true) return;
    this.#isShown = true;
    const { columns = 0 } = this.#stream;
    this.#stream.write(
      CLEAR_LINE + (columns > 1 ? text.slice(0, columns - 1) : text),
    );
  }
}
