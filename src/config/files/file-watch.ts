import { stat } from "node:fs/promises";

export interface FileWatch {
  /** Checks immediately; resolves when a change has taken effect. */
  check(): Promise<void>;
  close(): void;
}

/** The longest time until a change takes effect, for example a removed user. */
const CHECK_INTERVAL_MS = 2_000;

/**
 * Polls files and calls back when one has changed. Notifications of the system are not used: they are
 * lost when a folder is replaced under a link, as Kubernetes does with secrets, and on many network
 * file systems.
 *
 * @param onChange calls never overlap; it must not throw
 * @param readMark returns a text that changes with the file
 * @returns after the first check: later reads are not older than it
 */
export async function watchFiles(
  paths: readonly string[],
  onChange: () => Promise<void>,
  readMark: (path: string) => Promise<string> = statMark,
): Promise<FileWatch> {
  // Sequential: a check that hangs, for example on a dead network share, blocks one thread of the
  // thread pool instead of one for each path.
  const readMarks = async (): Promise<string> => {
    const marks: string[] = [];
    for (const path of paths) marks.push(await readMark(path));
    return marks.join("\n");
  };
  let seen = await readMarks();
  let isClosed = false;
  let running: Promise<void> = Promise.resolve();
  let following: Promise<void> | undefined;
  const compare = async (): Promise<void> => {
    following = undefined;
    if (isClosed) return;
    const now = await readMarks();
    if (isClosed || now === seen) return;
    seen = now;
    await onChange();
  };
  // A running check may have read the files before this call, so all callers share the next one.
  const check = (): Promise<void> => {
    following ??= running = running.then(compare);
    return following;
  };
  const timer = setInterval(() => void check(), CHECK_INTERVAL_MS);
  // The process can end without waiting for the next check.
  timer.unref();
  return {
    check,
    close: () => {
      isClosed = true;
      clearInterval(timer);
    },
  };
}

async function statMark(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeMs, ctimeMs } = await stat(path);
    return [dev, ino, size, mtimeMs, ctimeMs].join(" ");
  } catch (error) {
    return error instanceof Error && "code" in error
      ? String(error.code)
      : "unknown";
  }
}
