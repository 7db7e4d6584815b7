import type { DestinationStream } from "pino";
import type { Config } from "../config/config.ts";
import { openBatchedLines } from "./batched-lines.ts";

type Format = Config["log"]["format"];
type OpenFormat = (format: Format) => Flushable | Promise<Flushable>;
type Flushable = DestinationStream & {
  flush?(done: (error?: Error) => void): void;
};

/** Where the log goes, in a form that may be exchanged while the mirror runs. */
export class LogOutput implements DestinationStream {
  readonly #openFormat: OpenFormat;
  #stream: Flushable;

  private constructor(stream: Flushable, openFormat: OpenFormat) {
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

  /** Called by pino's `flush`. */
  flush(done: (error?: Error) => void): void {
    if (this.#stream.flush === undefined) done();
    else this.#stream.flush(done);
  }

  async setFormat(format: Format): Promise<void> {
    const next = await this.#openFormat(format);
    const before = this.#stream;
    // What is still held back comes first.
    await new Promise<void>((resolve) => {
      if (before.flush === undefined) resolve();
      else before.flush(() => resolve());
    });
    this.#stream = next;
  }
}

/** Each is opened once: it writes what is left in it when the process ends. */
function onceEach(onLost: ((lines: string) => void) | undefined): OpenFormat {
  let json: Flushable | undefined;
  let pretty: Promise<Flushable> | undefined;
  return (format) =>
    format === "pretty"
      ? (pretty ??= openPretty())
      : // Bounded: a blocked reader of the log costs records, never requests.
        (json ??= openBatchedLines(onLost));
}

async function openPretty(): Promise<Flushable> {
  const { default: pretty } = await import("pino-pretty");
  return pretty({});
}
