import fs from "node:fs";
import { StorageError } from "../../blob-store.ts";
import { openPageCache, type PageCache } from "../blobs/page-cache.ts";
import { Semaphore } from "../../../wire/semaphore.ts";

export interface FileStat {
  /** A regular file: no folder, link, pipe or device. */
  readonly isFile: boolean;
  readonly sizeBytes: number;
  /** Permission bits, as in 0o600. */
  readonly mode: number;
  /** Epoch milliseconds. */
  readonly modifiedAtMs: number;
}

/**
 * The few calls that the store makes, so that a test can let the n-th of them fail.
 * Every method rejects with the system's error (`code` as in `ENOSPC`); descriptors are numbers,
 * because a FileHandle costs an object and a promise more for each read.
 */
export interface FileSystem {
  /** A file that it creates has mode 0600. */
  open(path: string, flags: number): Promise<number>;
  close(fd: number): Promise<void>;
  stat(fd: number): Promise<FileStat>;
  /** May read less than asked; 0 only at the end of the file. */
  read(
    fd: number,
    target: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<number>;
  /** What needs no wait; absent where the system has no such calls. */
  readonly pageCache?: PageCache | undefined;
  /** May write less than given. */
  writev(
    fd: number,
    chunks: readonly Uint8Array[],
    position: number,
  ): Promise<number>;
  truncate(fd: number, sizeBytes: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  fsync(fd: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Of the entry itself: a link is not followed. */
  statPath(path: string): Promise<FileStat>;
  /** Mode 0600, as {@link open} gives. */
  makePrivate(path: string): Promise<void>;
  /** Mode 0700, parents too; one that is there keeps its mode. */
  makeFolder(path: string): Promise<void>;
  list(path: string): Promise<readonly string[]>;
  /** Every name in a folder, some hundred at a time; one that comes or goes meanwhile may be missed. */
  eachName(
    path: string,
    visit: (names: readonly string[]) => Promise<void>,
  ): Promise<void>;
  /** Whatever stands there, with all below it; absent is fine. */
  removeTree(path: string): Promise<void>;
}

/** The system's code of an error, as in `ENOENT`. */
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

/** The callback calls, not `fs.promises`: they go to the thread pool by a number, without a FileHandle. */
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
      bufferSize: NAMES_AT_ONCE,
    });
    let names: string[] = [];
    for await (const { name } of folder) {
      names.push(name);
      if (names.length < NAMES_AT_ONCE) continue;
      await visit(names);
      names = [];
    }
    if (names.length > 0) await visit(names);
  },
  removeTree: (path) => fs.promises.rm(path, { recursive: true, force: true }),
};

const NAMES_AT_ONCE = 256;

function fileStat(stats: fs.Stats): FileStat {
  return {
    isFile: stats.isFile(),
    sizeBytes: stats.size,
    mode: stats.mode & 0o7777,
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
