import type { DestinationStream } from "pino";
import type { Config } from "../config/config.ts";
import { type BatchedLines, openBatchedLines } from "./batched-lines.ts";
import { flushWithin } from "./flush-within.ts";

type Format = Config["log"]["format"];
type OpenFormat = (format: Format) => Output | Promise<Output>;
/** The pretty form writes at once. */
type Output = BatchedLines | (DestinationStream & { flush?: undefined });

/** Where the log goes, in a form that may be exchanged while the mirror runs. */
export class LogOutput implements DestinationStream {
  readonly #openFormat: OpenFormat;
  #stream: Output;

  private constructor(stream: Output, openFormat: OpenFormat) {
    this.#stream = stream;
    this.#openFormat = openFormat;
  }

  /** @param onLost told of JSON lines that a reader who takes nothing made us drop */
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
    // What is still held back comes first, where its reader takes it.
    await this.flush();
    this.#stream = next;
  }

  /** Writes what is held back; a reader that takes nothing is not waited for. */
  async flush(): Promise<void> {
    const stream = this.#stream;
    if (stream.flush !== undefined) await flushWithin(stream);
  }

  /** Writes what is left; a reader that takes nothing is not waited for. The last call. */
  async end(): Promise<void> {
    const stream = this.#stream;
    if (stream.flush === undefined) return;
    if (!(await flushWithin(stream))) stream.destroy();
  }
}

/** Each is opened once: it writes what is left in it when the process ends. */
function onceEach(onLost: ((lines: string) => void) | undefined): OpenFormat {
  let json: Output | undefined;
  let pretty: Promise<Output> | undefined;
  return (format) =>
    format === "pretty"
      ? (pretty ??= openPretty())
      : // Bounded: a blocked reader of the log costs records, never requests.
        (json ??= openBatchedLines(onLost));
}

async function openPretty(): Promise<Output> {
  const { default: pretty } = await import("pino-pretty");
  return pretty({});
}
