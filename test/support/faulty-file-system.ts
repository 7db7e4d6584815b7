import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";

/** Those that fail with a code. */
type Call = Exclude<keyof FileSystem, "pageCache">;

/**
 * The real file system with faults in it: the n-th call of a kind fails with a system code.
 * Calls are counted by kind, and descriptors that were opened and not closed.
 */
export class FaultyFileSystem {
  readonly fileSystem: FileSystem;
  readonly counts = new Map<Call, number>();
  /** Descriptors that are open now. */
  openFiles = 0;
  /** Bytes that went to sockets past all buffers. */
  sentBytes = 0;
  /** What one write takes at most. */
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
        // Every read is one that may fail.
        read: () => false,
        send: (...input) => {
          const sent = pageCache.send(...input);
          this.sentBytes += sent ?? 0;
          return sent;
        },
      },
    };
  }

  /** Lets a call fail: the next one, or the n-th from now on. Later ones work again. */
  fail(call: Call, code: string, nth = 1): void {
    this.#faults.set(call, {
      at: this.countOf(call) + nth,
      code,
      isLasting: false,
    });
  }

  /** Lets the n-th call and all after it fail. */
  failFrom(call: Call, code: string, nth = 1): void {
    this.#faults.set(call, {
      at: this.countOf(call) + nth,
      code,
      isLasting: true,
    });
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
