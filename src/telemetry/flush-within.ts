/** Far more than a reader needs that takes anything at all. */
const FLUSH_WITHIN_MS = 2_000;

/** A stream that tells when what was written to it is out. */
export interface Flushable {
  flush(done: (error?: Error | null) => void): void;
}

/**
 * Waits until what is left in a stream is out, but not for a reader that takes nothing. Never
 * rejects: what can't be written the stream reports by itself, and that a pipe can't be synced is
 * not a fault.
 *
 * @returns false if something is left
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
