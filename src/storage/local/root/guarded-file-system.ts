import { constants } from "node:fs";
import { type FileSystem, systemCode } from "./file-system.ts";
import { HungCalls } from "./hung-calls.ts";
import { RootAwayError, type RootWatch } from "./root-watch.ts";

const { O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND } = constants;
const WRITES = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;

/** Errors of a path below a vanished root, where absence must not be mistaken for a removed blob. */
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ESTALE"]);

/**
 * Wraps the file system of a storage root that may be moved, deleted or unmounted. Nothing is written
 * to a path, and nothing is reported absent, unless the root is still the one that was opened. Open
 * files stay readable. A call by name that gets no answer fails after a while.
 */
export function guardFileSystem(
  inner: FileSystem,
  watch: Pick<RootWatch, "isAway" | "assertHere">,
  hung = new HungCalls(),
): FileSystem {
  const read = async <T>(work: () => Promise<T>): Promise<T> => {
    if (watch.isAway) throw new RootAwayError();
    try {
      return await work();
    } catch (error) {
      if (ABSENT.has(systemCode(error))) await watch.assertHere();
      throw error;
    }
  };
  const lookUp = <T>(
    work: () => Promise<T>,
    onLate?: (result: T) => void,
  ): Promise<T> => hung.run(() => read(work), onLate);
  const change = <T>(
    work: () => Promise<T>,
    onLate?: (result: T) => void,
  ): Promise<T> =>
    hung.run(async (isLate) => {
      await watch.assertHere();
      if (isLate()) throw new RootAwayError();
      return read(work);
    }, onLate);
  /** Opens a file and then checks the root again, which may have vanished after the first check. */
  const openHere = async (path: string, flags: number): Promise<number> => {
    const fd = await inner.open(path, flags);
    try {
      await watch.assertHere();
      return fd;
    } catch (error) {
      // Nothing is written yet; an empty file can only be the one created here.
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
        ? lookUp(() => inner.open(path, flags), closeLate)
        : change(() => openHere(path, flags), closeLate),
    writev: (fd, chunks, position) =>
      watch.isAway
        ? Promise.reject(new RootAwayError())
        : inner.writev(fd, chunks, position),
    rename: (from, to) => change(() => inner.rename(from, to)),
    link: (from, to) => change(() => inner.link(from, to)),
    unlink: (path) => change(() => inner.unlink(path)),
    statPath: (path) => lookUp(() => inner.statPath(path)),
    makePrivate: (path) => change(() => inner.makePrivate(path)),
    makeFolder: (path) => change(() => inner.makeFolder(path)),
    list: (path) => lookUp(() => inner.list(path)),
    // Not bounded in time: they take as long as the folder is large.
    eachName: (path, visit) => read(() => inner.eachName(path, visit)),
    removeTree: async (path) => {
      await watch.assertHere();
      await read(() => inner.removeTree(path));
    },
  };
}
