/*
 * Bytes of a file that the kernel has in memory, read without a thread, or handed to a socket without
 * a copy, and neither with a wait: preadv2(2), and sendfile(2) behind cachestat(2). Node offers none of
 * them; `node:ffi` (Node 26) calls them in the C library. Where anything is missing (an older Node, a
 * kernel before 6.5, another system, a sandbox that forbids it) there is no page cache, and files are
 * read by threads.
 */

import type ffi from "node:ffi";

/** Where a C `long` and a file's offset have 64 bits, and calls have been tried. */
const ARCHITECTURES = new Set(["x64", "arm64"]);
/** @see https://man7.org/linux/man-pages/man2/cachestat.2.html; the number is that of every architecture */
const SYS_CACHESTAT = 451n;
/** @see https://man7.org/linux/man-pages/man2/readv.2.html */
const RWF_NOWAIT = 8;

export interface PageCache {
  /**
   * Reads at once. For few bytes: whoever else is to be served waits for the copy.
   *
   * @param length at most that of `target`
   * @returns false where not all of them are in memory; `target` may then hold some
   */
  readonly read: (
    file: number,
    target: Uint8Array,
    length: number,
    position: number,
  ) => boolean;
  /**
   * Hands bytes of a file to a non-blocking socket. Waits for neither: what is not in memory, or is
   * only on its way there, is not sent.
   *
   * @param length at least 1, and within the file
   * @returns how many the socket took, 0 where it takes none or is broken; undefined where not all
   *   of them are in memory
   */
  readonly send: (
    socket: number,
    file: number,
    position: number,
    length: number,
  ) => number | undefined;
}

/** @returns undefined where the system has no such calls */
export function openPageCache(): PageCache | undefined {
  const { platform, arch } = process;
  if (platform !== "linux" || !ARCHITECTURES.has(arch)) return undefined;
  try {
    return bind();
  } catch {
    return undefined;
  }
}

function bind(): PageCache | undefined {
  const foreign = loadFfi();
  if (foreign === undefined) return undefined;
  // Kept whole: what becomes of functions whose library is collected is not told.
  const library = foreign.dlopen(null, {
    sendfile: { arguments: ["i32", "i32", "buffer", "u64"], return: "i64" },
    preadv2: {
      arguments: ["i32", "buffer", "i32", "i64", "i32"],
      return: "i64",
    },
    syscall: {
      arguments: ["i64", "i64", "buffer", "buffer", "i64"],
      return: "i64",
    },
    getpagesize: { arguments: [], return: "i32" },
  });
  const pageBytes = library.functions.getpagesize();
  // Each call is done with its arguments when it comes back.
  const memory = Buffer.allocUnsafeSlow(128);
  const range = memory.subarray(0, 16);
  const counts = memory.subarray(16, 56);
  const offset = memory.subarray(56, 64);
  const vector = memory.subarray(64, 80);
  const lastByte = memory.subarray(80, 81);

  const read: PageCache["read"] = (file, target, length, position) => {
    // The address is good as long as `target` is: whoever calls holds it.
    vector.writeBigUInt64LE(foreign.getRawPointer(target), 0);
    vector.writeBigUInt64LE(BigInt(length), 8);
    const bytesRead = library.functions.preadv2(
      file,
      vector,
      1,
      BigInt(position),
      RWF_NOWAIT,
    );
    return Number(bytesRead) === length;
  };
  const isCached = (file: number, position: number, length: number) => {
    range.writeBigUInt64LE(BigInt(position), 0);
    range.writeBigUInt64LE(BigInt(length), 8);
    const failed = library.functions.syscall(
      SYS_CACHESTAT,
      BigInt(file),
      range,
      counts,
      0n,
    );
    const firstPage = Math.floor(position / pageBytes);
    const pages = Math.ceil((position + length) / pageBytes) - firstPage;
    return failed === 0n && counts.readBigUInt64LE(0) >= BigInt(pages);
  };
  return {
    read,
    send: (socket, file, position, length) => {
      if (
        !isCached(file, position, length) ||
        // A page that the disk is just being asked for is cached; they come in order.
        !read(file, lastByte, 1, position + length - 1)
      ) {
        return undefined;
      }
      offset.writeBigInt64LE(BigInt(position));
      const sent = library.functions.sendfile(
        socket,
        file,
        offset,
        BigInt(length),
      );
      return Math.max(0, Number(sent));
    },
  };
}

/** The module warns on standard error that it is experimental; its user need not know. */
function loadFfi(): typeof ffi | undefined {
  const warn = process.emitWarning.bind(process);
  process.emitWarning = () => {};
  try {
    return process.getBuiltinModule("node:ffi");
  } finally {
    process.emitWarning = warn;
  }
}
