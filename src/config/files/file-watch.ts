import { stat } from "node:fs/promises";

export interface FileWatch {
  /** Looks now, not at the next time; ends when what changed has been taken over. */
  check(): Promise<void>;
  close(): void;
}

/** What is taken away from a file is no longer believed this much later. */
const LOOK_EVERY_MS = 2_000;

/**
 * Looks at files again and again, and tells when one is another than before. Notifications of the
 * system are not asked for: they are lost where a folder is swapped under a link, as Kubernetes
 * does with its secrets, and on many network file systems.
 *
 * @param onChange is never called again before it has ended; what it throws is a bug
 * @param readMark what tells a file from what it was before
 * @returns once it is known what the files are like now: what is read after that is not older
 */
export async function watchFiles(
  paths: readonly string[],
  onChange: () => Promise<void>,
  readMark: (path: string) => Promise<string> = statMark,
): Promise<FileWatch> {
  // One after the other: a look that hangs, as at a dead network share, holds one thread of the
  // few that all files are read by, not one for each path.
  const readMarks = async (): Promise<string> => {
    const marks: string[] = [];
    for (const path of paths) marks.push(await readMark(path));
    return marks.join("\n");
  };
  let seen = await readMarks();
  let isClosed = false;
  let running: Promise<void> = Promise.resolve();
  let following: Promise<void> | undefined;
  const look = async (): Promise<void> => {
    following = undefined;
    if (isClosed) return;
    const now = await readMarks();
    if (isClosed || now === seen) return;
    seen = now;
    await onChange();
  };
  // One that runs may have looked too early for whoever asks: one more follows it, for all who ask.
  const check = (): Promise<void> => {
    following ??= running = running.then(look);
    return following;
  };
  const timer = setInterval(() => void check(), LOOK_EVERY_MS);
  // A mirror that is told to stop does not wait for the next look.
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
