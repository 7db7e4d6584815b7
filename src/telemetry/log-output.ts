import { isColouredOutput } from "./coloured-output.ts";
import type { DestinationStream } from "pino";
import type { Config } from "../config/config.ts";
import { type BatchedLines, openBatchedLines } from "./batched-lines.ts";
import { flushWithin } from "./flush-within.ts";

type Format = Config["log"]["format"];
type OpenFormat = (format: Format) => Output | Promise<Output>;
/** The pretty format writes immediately. */
type Output = BatchedLines | (DestinationStream & { flush?: undefined });

/** The output of the log, whose format can be changed while the mirror runs. */
export class LogOutput implements DestinationStream {
  readonly #openFormat: OpenFormat;
  #stream: Output;

  private constructor(stream: Output, openFormat: OpenFormat) {
    this.#stream = stream;
    this.#openFormat = openFormat;
  }

  /** @param onLost called with the number of JSON lines dropped because the reader does not read */
  static async open(
    format: Format,
    onLost?: (lines: string) => void,
  ): Promise<LogOutput> {
    const openFormat = onceEach(onLost);
    return new LogOutput(await openFormat(format), openFormat);
  }

  write(line: string): void {
    this.#stream.write(line);
  }

  async setFormat(format: Format): Promise<void> {
    const next = await this.#openFormat(format);
    // Buffered lines are written first, if the reader reads.
    await this.flush();
    this.#stream = next;
  }

  /** Writes buffered lines, within a bounded time. */
  async flush(): Promise<void> {
    const stream = this.#stream;
    if (stream.flush !== undefined) await flushWithin(stream);
  }

  /** Writes what is left, within a bounded time. Must be the last call. */
  async end(): Promise<void> {
    const stream = this.#stream;
    if (stream.flush === undefined) return;
    if (!(await flushWithin(stream))) stream.destroy();
  }
}

/** Each format's stream is opened once: it writes its buffer when the process ends. */
function onceEach(onLost: ((lines: string) => void) | undefined): OpenFormat {
  let json: Output | undefined;
  let pretty: Promise<Output> | undefined;
  return (format) =>
    format === "pretty"
      ? (pretty ??= openPretty())
      : // Bounded: a blocked reader of the log loses records, and never delays requests.
        (json ??= openBatchedLines(onLost));
}

async function openPretty(): Promise<Output> {
  const { default: pretty } = await import("pino-pretty");
  // Its own decision also follows FORCE_COLOR and CI, without a terminal.
  const colorize = isColouredOutput(process.stdout, process.env);
  return pretty({ colorize });
}
