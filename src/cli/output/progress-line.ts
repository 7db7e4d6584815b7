import type { CommandOutput } from "../declare-command.ts";

const SHOW_EVERY_MS = 200;
const CLEAR_LINE = "\r\u001B[K";

/** One line on a terminal that shows how far a command is; elsewhere only messages are printed. */
export class ProgressLine {
  readonly #stream: CommandOutput;
  readonly #nowMs: () => number;
  readonly #startedAtMs: number;
  #shownAtMs = -Infinity;
  #isShown = false;

  constructor(
    stream: CommandOutput,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#stream = stream;
    this.#nowMs = nowMs;
    this.#startedAtMs = nowMs();
  }

  /**
   * Shows a text in place of the previous one, a few times a second at most.
   *
   * @param textOf returns the text, from the seconds since the start, which are not 0
   */
  show(textOf: (seconds: number) => string): void {
    if (this.#stream.isTTY !== true) return;
    const nowMs = this.#nowMs();
    if (nowMs - this.#shownAtMs < SHOW_EVERY_MS) return;
    this.#shownAtMs = nowMs;
    this.draw(textOf(Math.max(0.001, (nowMs - this.#startedAtMs) / 1_000)));
  }

  /** Shows a text now. */
  draw(text: string): void {
    if (this.#stream.isTTY !== true) return;
    this.#isShown = true;
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
