import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";

/** Calls that can fail with a system code. */
type Call = Exclude<keyof FileSystem, "pageCache">;

/**
 * The real file system with injected faults: the n-th call of a kind fails with a system code. It
 * counts calls by kind, and descriptors that are open.
 */
export class FaultyFileSystem {
  readonly fileSystem: FileSystem;
  readonly counts = new Map<Call, number>();
  /** Number of open descriptors. */
  openFiles = 0;
  /** Bytes sent from the page cache to sockets without a copy. */
  sentBytes = 0;
  /** Maximum number of bytes that one write accepts. */
  maxWriteBytes = Number.POSITIVE_INFINITY;
  readonly #faults = new Map<
    Call,
    { at: number; code: string; isLasting: boolean }
  >();

  constructor() {
    const { pageCache, ...calls } = nodeFileSystem;
    const counted: Omit<FileSystem, "pageCache"> = {
      ...calls,
      open: async (path, flags) => {
        const fd = await nodeFileSystem.open(path, flags);
        this.openFiles += 1;
        return fd;
      },
      close: async (fd) => {
        await nodeFileSystem.close(fd);
        this.openFiles -= 1;
      },
      writev: (fd, chunks, position) =>
        nodeFileSystem.writev(
          fd,
          firstBytes(chunks, this.maxWriteBytes),
          position,
        ),
    };
    const faulty: Partial<Record<Call, unknown>> = {};
    for (const call of Object.keys(counted) as Call[]) {
      const inner = counted[call] as (...input: unknown[]) => Promise<unknown>;
      faulty[call] = async (...input: unknown[]) => {
        this.#count(call);
        return await inner(...input);
      };
    }
    this.fileSystem = {
      ...(faulty as FileSystem),
      pageCache: pageCache && {
        // Never read from the page cache, so that every read is a call that can fail.
        read: () => false,
        send: (...input) => {
          const sent = pageCache.send(...input);
          this.sentBytes += sent ?? 0;
          return sent;
        },
      },
    };
  }

  /** Makes one call fail: the next one, or the n-th from now. Later calls succeed. */
  fail(call: Call, code: string, nth = 1): void {
    this.#faults.set(call, {
      at: this.countOf(call) + nth,
      code,
      isLasting: false,
    });
  }

  /** Makes the n-th call from now and all later ones fail. */
  failFrom(call: Call, code: string, nth = 1): void {
    this.#faults.set(call, {
      at: this.countOf(call) + nth,
      code,
      isLasting: true,
    });
  }

  /** Lets all later calls of a kind succeed. */
  repair(call: Call): void {
    this.#faults.delete(call);
  }

  countOf(call: Call): number {
    return this.counts.get(call) ?? 0;
  }

  #count(call: Call): void {
    const count = this.countOf(call) + 1;
    this.counts.set(call, count);
    const fault = this.#faults.get(call);
    if (fault === undefined || count < fault.at) return;
    if (count > fault.at && !fault.isLasting) return;
    throw Object.assign(new Error(`${fault.code}: ${call}`), {
      code: fault.code,
    });
  }
}

function firstBytes(
  chunks: readonly Uint8Array[],
  maxBytes: number,
): readonly Uint8Array[] {
  const [first] = chunks;
  return first === undefined || maxBytes === Number.POSITIVE_INFINITY
    ? chunks
    : [first.subarray(0, maxBytes)];
}
