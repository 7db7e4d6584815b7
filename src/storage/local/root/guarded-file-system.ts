import { constants } from "node:fs";
import { type FileSystem, systemCode } from "./file-system.ts";
import { HungCalls } from "./hung-calls.ts";
import { RootAwayError, type RootWatch } from "./root-watch.ts";

const { O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND } = constants;
const WRITES = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;

/** What a path answers whose root is gone: absence would be taken for a blob that was removed. */
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ESTALE"]);

/**
 * A file system below a storage root that may be moved, deleted or unmounted: nothing is written to
 * a path, and nothing is reported absent, unless the root is still the one that was opened. Files
 * that are open can be read to their end. A call for a name that is not answered is given up.
 */
export function guardFileSystem(
  inner: FileSystem,
  watch: Pick<RootWatch, "isAway" | "assertHere">,
  hung = new HungCalls(),
): FileSystem {
  const reading = async <T>(work: () => Promise<T>): Promise<T> => {
    if (watch.isAway) throw new RootAwayError();
    try {
      return await work();
    } catch (error) {
      if (ABSENT.has(systemCode(error))) await watch.assertHere();
      throw error;
    }
  };
  const looking = <T>(
    work: () => Promise<T>,
    onLate?: (result: T) => void,
  ): Promise<T> => hung.run(() => reading(work), onLate);
  const changing = <T>(
    work: () => Promise<T>,
    onLate?: (result: T) => void,
  ): Promise<T> =>
    hung.run(async (isLate) => {
      await watch.assertHere();
      if (isLate()) throw new RootAwayError();
      return reading(work);
    }, onLate);
  /** Whether what was opened is in the root: it may have gone since it was looked at. */
  const openHere = async (path: string, flags: number): Promise<number> => {
    const fd = await inner.open(path, flags);
    try {
      await watch.assertHere();
      return fd;
    } catch (error) {
      // Nothing is written yet; an empty file can only be the one that was just made.
      const stat = await inner.stat(fd).catch(() => undefined);
      await inner.close(fd).catch(() => undefined);
      if ((flags & O_CREAT) !== 0 && stat?.sizeBytes === 0) {
        await inner.unlink(path).catch(() => undefined);
      }
      throw error;
    }
  };
  const closeLate = (fd: number): void => {
    void inner.close(fd).catch(() => undefined);
  };
  return {
    ...inner,
    open: (path, flags) =>
      (flags & WRITES) === 0
        ? looking(() => inner.open(path, flags), closeLate)
        : changing(() => openHere(path, flags), closeLate),
    writev: (fd, chunks, position) =>
      watch.isAway
        ? Promise.reject(new RootAwayError())
        : inner.writev(fd, chunks, position),
    rename: (from, to) => changing(() => inner.rename(from, to)),
    unlink: (path) => changing(() => inner.unlink(path)),
    statPath: (path) => looking(() => inner.statPath(path)),
    makePrivate: (path) => changing(() => inner.makePrivate(path)),
    makeFolder: (path) => changing(() => inner.makeFolder(path)),
    list: (path) => looking(() => inner.list(path)),
    // These take as long as the folder is large.
    eachName: (path, visit) => reading(() => inner.eachName(path, visit)),
    removeTree: async (path) => {
      await watch.assertHere();
      await reading(() => inner.removeTree(path));
    },
  };
}
