import { constants } from "node:fs";
import { type FileSystem, systemCode } from "./file-system.ts";
import { RootAwayError, type RootWatch } from "./root-watch.ts";

const { O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND } = constants;
const WRITES = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;

/** What a path answers whose root is gone: absence would be taken for a blob that was removed. */
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ESTALE"]);

/**
 * A file system below a storage root that may be moved, deleted or unmounted: nothing is written to
 * a path, and nothing is reported absent, unless the root is still the one that was opened. Files
 * that are open can be read to their end.
 */
export function guardFileSystem(
  inner: FileSystem,
  watch: Pick<RootWatch, "isAway" | "assertHere">,
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
  const writing = async <T>(work: () => Promise<T>): Promise<T> => {
    await watch.assertHere();
    return reading(work);
  };
  return {
    ...inner,
    open: (path, flags) =>
      ((flags & WRITES) === 0 ? reading : writing)(() =>
        inner.open(path, flags),
      ),
    writev: (fd, chunks, position) =>
      watch.isAway
        ? Promise.reject(new RootAwayError())
        : inner.writev(fd, chunks, position),
    rename: (from, to) => writing(() => inner.rename(from, to)),
    unlink: (path) => writing(() => inner.unlink(path)),
    statPath: (path) => reading(() => inner.statPath(path)),
    makePrivate: (path) => writing(() => inner.makePrivate(path)),
    makeFolder: (path) => writing(() => inner.makeFolder(path)),
    list: (path) => reading(() => inner.list(path)),
    eachName: (path, visit) => reading(() => inner.eachName(path, visit)),
    removeTree: (path) => writing(() => inner.removeTree(path)),
  };
}
