import { constants } from "node:fs";
import { syncFolder } from "../blobs/blob-files.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import { type FileSystem, systemCode } from "../root/file-system.ts";
import { MAX_LINE_LENGTH } from "./journal-lines.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_NOFOLLOW } =
  constants;
const READ_BYTES = 256 * 1024;
/** The most bytes that are copied while appends wait. */
const SHORT_TAIL_BYTES = 64 * 1024;
/** Bounds the copies of a tail that grows as fast as it is copied. */
const MAX_TAIL_COPIES = 16;

/** The file of the journal, as text. Every method throws the system's errors. */
export class JournalFile {
  readonly #layout: DiskLayout;
  readonly #fileSystem: FileSystem;
  /** The next append starts a new line: a crash or a failure may have cut the last one. */
  #isTorn = true;
  /** Whether the name of the file is durable. */
  #isNameSynced = false;

  constructor(layout: DiskLayout, fileSystem: FileSystem) {
    this.#layout = layout;
    this.#fileSystem = fileSystem;
  }

  /** @returns 0 if there is no file */
  async sizeBytes(): Promise<number> {
    try {
      const { rootsFile } = this.#layout;
      return (await this.#fileSystem.statPath(rootsFile)).sizeBytes;
    } catch (error) {
      if (systemCode(error) === "ENOENT") return 0;
      throw error;
    }
  }

  /** @returns the size of the file before */
  async append(lines: string, isSynced: boolean): Promise<number> {
    const fileSystem = this.#fileSystem;
    const fd = await fileSystem.open(
      this.#layout.rootsFile,
      O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW,
    );
    try {
      const { sizeBytes } = await fileSystem.stat(fd);
      const text = (this.#isTorn ? "\n" : "") + lines;
      this.#isTorn = true;
      await this.#writeAll(fd, Buffer.from(text, "latin1"), sizeBytes);
      this.#isTorn = false;
      if (isSynced) {
        await fileSystem.fdatasync(fd);
        await this.#syncName();
      }
      return sizeBytes;
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
  }

  /** Visits the lines, a few thousand at a time; none if there is no file. */
  async eachLine(
    visit: (lines: readonly string[]) => Promise<void> | void,
    signal?: AbortSignal,
  ): Promise<void> {
    const fd = await this.#openToRead();
    if (fd === undefined) return;
    try {
      const buffer = Buffer.allocUnsafe(READ_BYTES);
      let rest = "";
      for (let position = 0; ;) {
        signal?.throwIfAborted();
        const length = await this.#fileSystem.read(
          fd,
          buffer,
          0,
          READ_BYTES,
          position,
        );
        if (length === 0) break;
        position += length;
        // Lines are ASCII: references, digests and media types hold nothing else.
        const lines = (rest + buffer.toString("latin1", 0, length)).split("\n");
        // One character more than allowed, so that a part of a long line is not parsed as a line.
        rest = (lines.pop() ?? "").slice(0, MAX_LINE_LENGTH + 1);
        await visit(lines);
      }
      await visit([rest]);
    } finally {
      await this.#fileSystem.close(fd).catch(() => undefined);
    }
  }

  /**
   * Replaces the file by `texts` and everything that was appended from `position` on.
   *
   * @param exclusively runs work while nothing is appended
   * @returns the new size; if it throws, the file is unchanged
   */
  async rewrite(
    texts: AsyncIterable<string>,
    position: number,
    exclusively: <T>(work: () => Promise<T>) => Promise<T>,
  ): Promise<number> {
    const fileSystem = this.#fileSystem;
    const path = this.#layout.temporaryFile("roots", 0);
    const fd = await fileSystem.open(
      path,
      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
    );
    try {
      const copy = { fd, sizeBytes: 0, from: position };
      try {
        for await (const text of texts) {
          const bytes = Buffer.from(text, "latin1");
          await this.#writeAll(fd, bytes, copy.sizeBytes);
          copy.sizeBytes += bytes.length;
        }
        for (let copies = 0; copies < MAX_TAIL_COPIES; copies += 1) {
          if ((await this.#copyTail(copy)) <= SHORT_TAIL_BYTES) break;
        }
        // The sync that appends wait for has little left to write.
        await fileSystem.fdatasync(fd);
        await exclusively(async () => {
          if ((await this.#copyTail(copy)) > 0) await fileSystem.fdatasync(fd);
          // Lines that are synced from now on are lost with the new name.
          this.#isNameSynced = false;
          await fileSystem.rename(path, this.#layout.rootsFile);
          await this.#syncName();
        });
      } finally {
        await fileSystem.close(fd).catch(() => undefined);
      }
      return copy.sizeBytes;
    } catch (error) {
      await fileSystem.unlink(path).catch(() => undefined);
      throw error;
    }
  }

  /** Copies what the file has beyond the copy's position. @returns the number of copied bytes */
  async #copyTail(copy: {
    readonly fd: number;
    sizeBytes: number;
    from: number;
  }): Promise<number> {
    const from = await this.#openToRead();
    if (from === undefined) return 0;
    try {
      const buffer = Buffer.allocUnsafe(READ_BYTES);
      const start = copy.from;
      for (;;) {
        const length = await this.#fileSystem.read(
          from,
          buffer,
          0,
          READ_BYTES,
          copy.from,
        );
        if (length === 0) return copy.from - start;
        await this.#writeAll(
          copy.fd,
          buffer.subarray(0, length),
          copy.sizeBytes,
        );
        copy.from += length;
        copy.sizeBytes += length;
      }
    } finally {
      await this.#fileSystem.close(from).catch(() => undefined);
    }
  }

  async #syncName(): Promise<void> {
    if (this.#isNameSynced) return;
    await syncFolder(this.#fileSystem, this.#layout.root);
    this.#isNameSynced = true;
  }

  /** @returns undefined if there is no file */
  async #openToRead(): Promise<number | undefined> {
    try {
      return await this.#fileSystem.open(
        this.#layout.rootsFile,
        O_RDONLY | O_NOFOLLOW,
      );
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async #writeAll(
    fd: number,
    bytes: Uint8Array,
    position: number,
  ): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const written = await this.#fileSystem.writev(
        fd,
        [bytes.subarray(done)],
        position + done,
      );
      if (written === 0)
        throw new Error("got 0 bytes written; expected progress");
      done += written;
    }
  }
}
