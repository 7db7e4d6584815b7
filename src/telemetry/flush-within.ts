/** Far more than any reader that reads at all needs. */
const FLUSH_WITHIN_MS = 2_000;

/** A stream that reports when its buffer was written. */
export interface Flushable {
  flush(done: (error?: Error | null) => void): void;
}

/**
 * Waits until a stream's buffer is written, for a bounded time. Never rejects: the stream reports
 * failed writes itself, and a pipe that can't be synced is not a fault.
 *
 * @returns false if something is left unwritten
 */
export function flushWithin(stream: Flushable): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), FLUSH_WITHIN_MS);
    stream.flush((error) => {
      clearTimeout(timer);
      resolve(!isFailedWrite(error));
    });
  });
}

function isFailedWrite(error: Error | null | undefined): boolean {
  return error instanceof Error && "syscall" in error
    ? error.syscall === "write"
    : false;
}
