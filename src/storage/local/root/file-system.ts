import fs from "node:fs";
import { StorageError } from "../../blob-store.ts";
import { openPageCache, type PageCache } from "../blobs/page-cache.ts";
import { Semaphore } from "../../../wire/semaphore.ts";

export interface FileStat {
  /** Whether it is a regular file: not a folder, link, pipe or device. */
  readonly isFile: boolean;
  readonly sizeBytes: number;
  /** Permission bits, as in 0o600. */
  readonly mode: number;
  /** How many names it has; more than one if another folder has a hard link to it. */
  readonly linkCount: number;
  /** Epoch milliseconds. */
  readonly modifiedAtMs: number;
}

/**
 * The system calls of the store, so that a test can make the n-th of them fail.
 * Every method rejects with the system's error (`code` as in `ENOSPC`). Descriptors are numbers,
 * because a FileHandle costs one more object and promise for each read.
 */
export interface FileSystem {
  /** Creates files with mode 0600. */
  open(path: string, flags: number): Promise<number>;
  close(fd: number): Promise<void>;
  stat(fd: number): Promise<FileStat>;
  /** May read less than requested; 0 only at the end of the file. */
  read(
    fd: number,
    target: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<number>;
  /** Calls that never wait; absent on systems without them. */
  readonly pageCache?: PageCache | undefined;
  /** May write less than `chunks` hold. */
  writev(
    fd: number,
    chunks: readonly Uint8Array[],
    position: number,
  ): Promise<number>;
  truncate(fd: number, sizeBytes: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  fsync(fd: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Gives a file a second name; a link is not followed. */
  link(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Describes the entry itself: a link is not followed. */
  statPath(path: string): Promise<FileStat>;
  /** Sets mode 0600, like {@link open}. */
  makePrivate(path: string): Promise<void>;
  /** Creates folders with mode 0700, parents included; an existing one keeps its mode. */
  makeFolder(path: string): Promise<void>;
  list(path: string): Promise<readonly string[]>;
  /** Visits all names in a folder, a few hundred at a time. A name that is added or removed meanwhile may be missed. */
  eachName(
    path: string,
    visit: (names: readonly string[]) => Promise<void>,
  ): Promise<void>;
  /** Removes any entry with everything below it; an absent one is ignored. */
  removeTree(path: string): Promise<void>;
}

/** Returns the system's code of an error, as in `ENOENT`. */
export function systemCode(error: unknown): string {
  if (error instanceof Error && "code" in error) {
    if (typeof error.code === "string") return error.code;
  }
  return "EUNKNOWN";
}

export function asStorageError(
  operation: string,
  error: unknown,
): StorageError {
  return error instanceof StorageError
    ? error
    : new StorageError(operation, systemCode(error), { cause: error });
}

/**
 * Calls that wait for the disk itself: half of the threads are left for those that read, however slow
 * it is. As many as libuv starts: see main.ts.
 */
const syncs = new Semaphore(
  Math.max(1, Math.floor(Number(process.env["UV_THREADPOOL_SIZE"] ?? 4) / 2)),
);

/** Uses the callback calls, not `fs.promises`: they work on descriptors, without a FileHandle. */
export const nodeFileSystem: FileSystem = {
  open: (path, flags) =>
    new Promise((resolve, reject) => {
      fs.open(path, flags, 0o600, (error, fd) => {
        if (error === null) resolve(fd);
        else reject(error);
      });
    }),
  close: (fd) => settle((done) => fs.close(fd, done)),
  stat: (fd) =>
    new Promise((resolve, reject) => {
      fs.fstat(fd, (error, stats) => {
        if (error === null) resolve(fileStat(stats));
        else reject(error);
      });
    }),
  read: (fd, target, offset, length, position) =>
    new Promise((resolve, reject) => {
      fs.read(fd, target, offset, length, position, (error, bytesRead) => {
        if (error === null) resolve(bytesRead);
        else reject(error);
      });
    }),
  pageCache: openPageCache(),
  writev: (fd, chunks, position) =>
    new Promise((resolve, reject) => {
      fs.writev(fd, [...chunks], position, (error, bytesWritten) => {
        if (error === null) resolve(bytesWritten);
        else reject(error);
      });
    }),
  truncate: (fd, sizeBytes) =>
    settle((done) => fs.ftruncate(fd, sizeBytes, done)),
  fdatasync: (fd) => syncs.run(() => settle((done) => fs.fdatasync(fd, done))),
  fsync: (fd) => syncs.run(() => settle((done) => fs.fsync(fd, done))),
  rename: (from, to) => settle((done) => fs.rename(from, to, done)),
  link: (from, to) => settle((done) => fs.link(from, to, done)),
  unlink: (path) => settle((done) => fs.unlink(path, done)),
  statPath: (path) =>
    new Promise((resolve, reject) => {
      fs.lstat(path, (error, stats) => {
        if (error === null) resolve(fileStat(stats));
        else reject(error);
      });
    }),
  makePrivate: (path) => settle((done) => fs.chmod(path, 0o600, done)),
  makeFolder: (path) =>
    settle((done) =>
      fs.mkdir(path, { recursive: true, mode: 0o700 }, (error) => done(error)),
    ),
  list: (path) => fs.promises.readdir(path),
  eachName: async (path, visit) => {
    const folder = await fs.promises.opendir(path, {
      bufferSize: NAMES_PER_VISIT,
    });
    let names: string[] = [];
    for await (const { name } of folder) {
      names.push(name);
      if (names.length < NAMES_PER_VISIT) continue;
      await visit(names);
      names = [];
    }
    if (names.length > 0) await visit(names);
  },
  removeTree: (path) => fs.promises.rm(path, { recursive: true, force: true }),
};

const NAMES_PER_VISIT = 256;

function fileStat(stats: fs.Stats): FileStat {
  return {
    isFile: stats.isFile(),
    sizeBytes: stats.size,
    mode: stats.mode & 0o7777,
    linkCount: stats.nlink,
    modifiedAtMs: stats.mtimeMs,
  };
}

function settle(
  start: (done: (error: NodeJS.ErrnoException | null) => void) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}
