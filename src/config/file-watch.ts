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
 * @returns once it is known what the files are like now: what is read after that is not older
 */
export async function watchFiles(
  paths: readonly string[],
  onChange: () => Promise<void>,
  lookEveryMs: number = LOOK_EVERY_MS,
): Promise<FileWatch> {
  let seen = await fingerprint(paths);
  let isClosed = false;
  let running: Promise<void> = Promise.resolve();
  const look = async (): Promise<void> => {
    const now = await fingerprint(paths);
    if (isClosed || now === seen) return;
    seen = now;
    await onChange();
  };
  const check = (): Promise<void> => {
    running = running.then(look);
    return running;
  };
  const timer = setInterval(() => void check(), lookEveryMs);
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

async function fingerprint(paths: readonly string[]): Promise<string> {
  const marks = await Promise.all(
    paths.map(async (path) => {
      try {
        const { dev, ino, size, mtimeMs, ctimeMs } = await stat(path);
        return [dev, ino, size, mtimeMs, ctimeMs].join(" ");
      } catch (error) {
        return error instanceof Error && "code" in error
          ? String(error.code)
          : "unknown";
      }
    }),
  );
  return marks.join("\n");
}
