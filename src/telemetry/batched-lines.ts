import { type DestinationStream, destination } from "pino";
import type { Flushable } from "./flush-within.ts";

/** In characters; some hundred records. */
const BATCH_LENGTH = 64 * 1024;
/** The longest delay of a record. */
const WRITE_AFTER_MS = 100;
/** Buffered for a reader that does not read: beyond it records are dropped, so that requests never wait. */
const MAX_WAITING_BYTES = 1 << 20;

export interface BatchedLines extends DestinationStream, Flushable {
  /** Drops what is left and what follows, so that an exit does not wait for it. */
  destroy(): void;
}

/**
 * Opens standard output for one line per request. Lines are written in batches, each a moment late.
 *
 * A write for each line would be a call to another thread for each; and the stream below measures
 * its whole buffer whenever a line is added, which with 30 buffered lines costs more than creating one.
 *
 * @param onLost called with the number of lines dropped because the reader does not read
 */
export function openBatchedLines(
  onLost: (lines: string) => void = () => undefined,
): BatchedLines {
  const stream = destination({
    sync: false,
    // Every batch is written immediately.
    minLength: 1,
    maxLength: MAX_WAITING_BYTES,
  });
  stream.on("drop", onLost);
  let isFailing = false;
  // A full disk or a closed terminal loses records, never requests. A failed write is retried with
  // the next batch.
  stream.on("error", () => (isFailing = true));
  stream.on("write", () => (isFailing = false));
  let lines: string[] = [];
  let length = 0;
  let timer: NodeJS.Timeout | undefined;
  let isDestroyed = false;
  const writeBatch = (): void => {
    if (lines.length === 0) return;
    const batch = lines.join("");
    lines = [];
    length = 0;
    if (!isDestroyed) stream.write(batch);
  };
  const writeLate = (): void => {
    timer = undefined;
    writeBatch();
  };
  // Runs before the stream's own listeners, which write its buffer synchronously, possibly while a
  // thread still writes a batch: hence an orderly end awaits a flush.
  process.prependListener("beforeExit", writeBatch);
  process.prependListener("exit", () => {
    writeBatch();
    // The stream's own listener repeats a failing write forever, and the process would not exit.
    if (isFailing) stream.destroy();
  });
  return {
    write: (line) => {
      lines.push(line);
      length += line.length;
      if (length >= BATCH_LENGTH) writeBatch();
      else timer ??= setTimeout(writeLate, WRITE_AFTER_MS).unref();
    },
    flush: (done) => {
      writeBatch();
      stream.flush(done);
    },
    destroy: () => {
      isDestroyed = true;
      stream.destroy();
    },
  };
}
