import { constants, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";

/** The writes to a file, and the moments at which they became durable. */
interface CrashFile {
  readonly writes: {
    readonly at: number;
    readonly position: number;
    readonly bytes: Buffer;
  }[];
  /** Moments of successful syncs. */
  readonly syncedAt: number[];
}

type NameChange =
  | {
      readonly kind: "create";
      readonly at: number;
      readonly path: string;
      readonly file: CrashFile;
    }
  | {
      readonly kind: "rename";
      readonly at: number;
      readonly path: string;
      readonly to: string;
    }
  | { readonly kind: "remove"; readonly at: number; readonly path: string };

/**
 * The real file system with a journal of its writes and syncs. For any moment of the journal a
 * folder can be filled as a power failure at that moment could have left it. Names appear in the
 * order of their changes, as journaling file systems keep them, cut off at a random change after the
 * last sync of a folder. Bytes that were not synced are missing, zero, torn at 4 KiB, or complete.
 */
export class CrashFileSystem {
  readonly fileSystem: FileSystem;
  readonly #root: string;
  readonly #names: NameChange[] = [];
  readonly #foldersSyncedAt: number[] = [];
  readonly #open = new Map<number, CrashFile>();
  readonly #folders = new Set<number>();
  readonly #current = new Map<string, CrashFile>();
  #now = 0;

  constructor(root: string) {
    this.#root = root;
    this.fileSystem = {
      ...nodeFileSystem,
      open: async (path, flags) => {
        const fd = await nodeFileSystem.open(path, flags);
        if ((flags & constants.O_DIRECTORY) !== 0) {
          this.#folders.add(fd);
          return fd;
        }
        let file = this.#current.get(path);
        if (file === undefined || (flags & constants.O_TRUNC) !== 0) {
          file = { writes: [], syncedAt: [] };
          if ((flags & constants.O_CREAT) !== 0) {
            this.#current.set(path, file);
            this.#names.push({ kind: "create", at: this.#tick(), path, file });
          }
        }
        this.#open.set(fd, file);
        return fd;
      },
      close: (fd) => {
        this.#open.delete(fd);
        this.#folders.delete(fd);
        return nodeFileSystem.close(fd);
      },
      writev: async (fd, chunks, position) => {
        const length = await nodeFileSystem.writev(fd, chunks, position);
        const bytes = Buffer.concat(chunks).subarray(0, length);
        this.#open.get(fd)?.writes.push({
          at: this.#tick(),
          position,
          bytes: Buffer.from(bytes),
        });
        return length;
      },
      fdatasync: async (fd) => {
        await nodeFileSystem.fdatasync(fd);
        this.#open.get(fd)?.syncedAt.push(this.#tick());
      },
      fsync: async (fd) => {
        await nodeFileSystem.fsync(fd);
        if (this.#folders.has(fd)) this.#foldersSyncedAt.push(this.#tick());
        else this.#open.get(fd)?.syncedAt.push(this.#tick());
      },
      rename: async (from, to) => {
        await nodeFileSystem.rename(from, to);
        const file = this.#current.get(from);
        this.#current.delete(from);
        if (file !== undefined) this.#current.set(to, file);
        this.#names.push({ kind: "rename", at: this.#tick(), path: from, to });
      },
      unlink: async (path) => {
        await nodeFileSystem.unlink(path);
        this.#current.delete(path);
        this.#names.push({ kind: "remove", at: this.#tick(), path });
      },
      removeTree: async (path) => {
        await nodeFileSystem.removeTree(path);
        this.#current.delete(path);
        this.#names.push({ kind: "remove", at: this.#tick(), path });
      },
    };
  }

  /** Number of moments: one after each change. */
  get moments(): number {
    return this.#now;
  }

  /** Writes into a folder a state that a power failure at the moment could have left. */
  layOut(target: string, moment: number, random: () => number): void {
    const lastSync = Math.max(
      0,
      ...this.#foldersSyncedAt.filter((at) => at <= moment),
    );
    const reached = lastSync + Math.floor(random() * (moment - lastSync + 1));
    const files = new Map<string, CrashFile>();
    for (const change of this.#names) {
      if (change.at > reached) break;
      if (change.kind === "create") files.set(change.path, change.file);
      else {
        const file = files.get(change.path);
        files.delete(change.path);
        if (change.kind === "rename" && file !== undefined) {
          files.set(change.to, file);
        }
      }
    }
    for (const [path, file] of files) {
      const to = join(target, relative(this.#root, path));
      mkdirSync(dirname(to), { recursive: true, mode: 0o700 });
      writeFileSync(to, contentAt(file, moment, random), { mode: 0o600 });
    }
  }

  #tick(): number {
    this.#now += 1;
    return this.#now;
  }
}

const TORN_BYTES = 4_096;

function contentAt(
  file: CrashFile,
  moment: number,
  random: () => number,
): Buffer {
  const synced = Math.max(0, ...file.syncedAt.filter((at) => at <= moment));
  let bytes = Buffer.alloc(0);
  const write = (position: number, written: Buffer): void => {
    const end = position + written.length;
    if (bytes.length < end) {
      bytes = Buffer.concat([bytes, Buffer.alloc(end - bytes.length)]);
    }
    written.copy(bytes, position);
  };
  for (const { at, position, bytes: written } of file.writes) {
    if (at > moment) break;
    if (at <= synced) {
      write(position, written);
      continue;
    }
    const fate = Math.floor(random() * 4);
    if (fate === 0) continue;
    if (fate === 1) write(position, Buffer.alloc(written.length));
    else if (fate === 2) {
      write(position, Buffer.alloc(written.length));
      write(
        position,
        written.subarray(
          0,
          Math.floor(random() * (written.length / TORN_BYTES + 1)) * TORN_BYTES,
        ),
      );
    } else write(position, written);
  }
  return bytes;
}
