/*
 * Reads bytes of a file that the kernel has in memory without a thread, or sends them to a socket
 * without a copy, never waiting: preadv2(2), and sendfile(2) after cachestat(2). Node offers none of
 * them; `node:ffi` (Node 26) calls them in the C library. If anything is missing (an older Node, a
 * kernel before 6.5, another system, a sandbox that forbids the calls), there is no page cache, and
 * files are read by threads.
 */

import type ffi from "node:ffi";

/** Architectures with a 64-bit C `long` and file offset on which the calls were tested. */
const ARCHITECTURES = new Set(["x64", "arm64"]);
/** @see https://man7.org/linux/man-pages/man2/cachestat.2.html; the number is the same on every architecture */
const SYS_CACHESTAT = 451n;
/** @see https://man7.org/linux/man-pages/man2/readv.2.html */
const RWF_NOWAIT = 8;

export interface PageCache {
  /**
   * Reads on the calling thread. Meant for few bytes, because all other requests wait for the copy.
   *
   * @param length at most that of `target`
   * @returns false if not all of them are in memory; `target` may then hold some
   */
  readonly read: (
    file: number,
    target: Uint8Array,
    length: number,
    position: number,
  ) => boolean;
  /**
   * Sends bytes of a file to a non-blocking socket. Waits for neither: bytes that are not in memory,
   * or are still being read from the disk, are not sent.
   *
   * @param length at least 1, and within the file
   * @returns how many the socket accepted, 0 if it accepts none or is broken; undefined if not all
   *   of them are in memory
   */
  readonly send: (
    socket: number,
    file: number,
    position: number,
    length: number,
  ) => number | undefined;
}

/** @returns undefined if the system has no such calls */
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
  // The library stays referenced: the fate of functions of a collected library is not documented.
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
  // Shared by all calls: each call has finished with its arguments when it returns.
  const memory = Buffer.allocUnsafeSlow(128);
  const range = memory.subarray(0, 16);
  const counts = memory.subarray(16, 56);
  const offset = memory.subarray(56, 64);
  const vector = memory.subarray(64, 80);
  const lastByte = memory.subarray(80, 81);

  const read: PageCache["read"] = (file, target, length, position) => {
    // The address stays valid while the caller holds `target`.
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
        // cachestat counts pages that are still being read; pages arrive in order, so the last one is tried.
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

/** Loads the module without its warning on standard error that it is experimental. */
function loadFfi(): typeof ffi | undefined {
  const warn = process.emitWarning.bind(process);
  process.emitWarning = () => {};
  try {
    return process.getBuiltinModule("node:ffi");
  } finally {
    process.emitWarning = warn;
  }
}
