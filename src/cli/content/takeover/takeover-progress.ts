import type { TakeoverProgress } from "../../../images/takeover/takeover.ts";
import type { CommandOutput } from "../../declare-command.ts";
import { sizeText } from "../../output/amounts.ts";

const SHOW_EVERY_MS = 200;
const CLEAR_LINE = "\r\u001B[K";

/** One line on a terminal that shows how far a take-over is; elsewhere only messages are printed. */
export class TakeoverProgressLine {
  readonly #stream: CommandOutput;
  readonly #nowMs: () => number;
  readonly #startedAtMs: number;
  #shownAtMs = -SHOW_EVERY_MS;
  #isShown = false;

  constructor(
    stream: CommandOutput,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#stream = stream;
    this.#nowMs = nowMs;
    this.#startedAtMs = nowMs();
  }

  show({ done, total, bytes }: TakeoverProgress): void {
    if (this.#stream.isTTY !== true) return;
    const nowMs = this.#nowMs();
    if (nowMs - this.#shownAtMs < SHOW_EVERY_MS) return;
    this.#shownAtMs = nowMs;
    this.#isShown = true;
    const seconds = Math.max(0.001, (nowMs - this.#startedAtMs) / 1_000);
    const share = total === 0 ? 1 : Math.min(1, done / total);
    const text = `${Math.floor(share * 100)} %  ${done} of ${total} links  ${sizeText(bytes)}  ${sizeText(bytes / seconds)}/s`;
    const { columns = 0 } = this.#stream;
    this.#stream.write(
      CLEAR_LINE + (columns > 1 ? text.slice(0, columns - 1) : text),
    );
  }

  /** Prints a message above the line. */
  print(text: string): void {
    this.end();
    this.#stream.write(text);
  }

  /** Removes the line. */
  end(): void {
    if (this.#isShown) this.#stream.write(CLEAR_LINE);
    this.#isShown = false;
  }
}
