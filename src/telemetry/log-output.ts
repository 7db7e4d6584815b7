import { type DestinationStream, pino } from "pino";
import type { Config } from "../config/config.ts";

type Format = Config["log"]["format"];
type Flushable = DestinationStream & {
  flush?(done: (error?: Error) => void): void;
};

/**
 * Records are written some at a time, each a moment late: one write for each would be a call to
 * another thread for each request.
 */
const OUTPUT = { maxLength: 1 << 20, minLength: 12_288, periodicFlush: 100 };

/** Where the log goes, in a form that may be exchanged while the mirror runs. */
export class LogOutput implements DestinationStream {
  #stream: Flushable;

  private constructor(stream: Flushable) {
    this.#stream = stream;
  }

  static async open(format: Format): Promise<LogOutput> {
    return new LogOutput(await openStream(format));
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
    const next = await openStream(format);
    const before = this.#stream;
    // What is still held back comes first.
    await new Promise<void>((resolve) => {
      if (before.flush === undefined) resolve();
      else before.flush(() => resolve());
    });
    this.#stream = next;
  }
}

async function openStream(format: Format): Promise<Flushable> {
  if (format === "pretty") {
    const { default: pretty } = await import("pino-pretty");
    return pretty({});
  }
  // Asynchronous and bounded: a blocked reader of the log costs records, never requests.
  return pino.destination({ sync: false, ...OUTPUT });
}
