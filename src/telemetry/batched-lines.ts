import { type DestinationStream, destination } from "pino";
import type { Flushable } from "./flush-within.ts";

/** Of characters; some hundred records. */
const BATCH_LENGTH = 64 * 1024;
/** How late a record is at most. */
const HAND_ON_AFTER_MS = 100;
/** Of a reader that takes nothing: beyond it records are lost, and requests are not held up. */
const MAX_WAITING_BYTES = 1 << 20;

export interface BatchedLines extends DestinationStream, Flushable {
  /** What is left, and what comes after it, is lost: no exit waits for it. */
  destroy(): void;
}

/**
 * Standard output for a line a request: handed on some at a time, each a moment late.
 *
 * One write for each would be a call to another thread for each; and the stream below measures all
 * that waits in it whenever a line is added, which for 30 waiting lines costs more than to make one.
 *
 * @param onLost told of lines that a reader who takes nothing made us drop
 */
export function openBatchedLines(
  onLost: (lines: string) => void = () => undefined,
): BatchedLines {
  const stream = destination({
    sync: false,
    // Whatever is handed on is written at once.
    minLength: 1,
    maxLength: MAX_WAITING_BYTES,
  });
  stream.on("drop", onLost);
  let isFailing = false;
  // A full disk or a terminal that was closed costs records, never requests. What could not be
  // written is tried again with the next batch.
  stream.on("error", () => (isFailing = true));
  stream.on("write", () => (isFailing = false));
  let lines: string[] = [];
  let length = 0;
  let timer: NodeJS.Timeout | undefined;
  let isDestroyed = false;
  const handOn = (): void => {
    if (lines.length === 0) return;
    const batch = lines.join("");
    lines = [];
    length = 0;
    if (!isDestroyed) stream.write(batch);
  };
  const handOnLate = (): void => {
    timer = undefined;
    handOn();
  };
  // Before the stream's own listeners, which write out what it has then; beside a batch that a
  // thread may still be writing, which is why an orderly end awaits a flush.
  process.prependListener("beforeExit", handOn);
  process.prependListener("exit", () => {
    handOn();
    // The stream's own listener repeats a write that fails without end, and the process stays.
    if (isFailing) stream.destroy();
  });
  return {
    write: (line) => {
      lines.push(line);
      length += line.length;
      if (length >= BATCH_LENGTH) handOn();
      else timer ??= setTimeout(handOnLate, HAND_ON_AFTER_MS).unref();
    },
    flush: (done) => {
      handOn();
      stream.flush(done);
    },
    destroy: () => {
      isDestroyed = true;
      stream.destroy();
    },
  };
}
