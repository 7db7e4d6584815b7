import { type FileHandle, open, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

/** A file's text, or in words why there is none. */
export type FileText =
  | {
      readonly isRead: true;
      readonly text: string;
      /** As `stat` tells it. */
      readonly mode: number;
      /** Everybody on the machine may read it. */
      readonly isWorldReadable: boolean;
      /** Everybody on the machine may write to it. */
      readonly isWorldWritable: boolean;
      /** Everybody on the machine may put another file in its place. */
      readonly isReplaceable: boolean;
    }
  | {
      readonly isRead: false;
      readonly isMissing: boolean;
      readonly seen: string;
    };

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  ENOTDIR: "no such file",
  EACCES: "a file that may not be read",
  EPERM: "a file that may not be read",
  EISDIR: "a folder",
  ELOOP: "a loop of symbolic links",
};

/** Reads a regular file of UTF-8 text, at most `maxBytes` long. Never throws. */
export async function readTextFile(
  path: string,
  maxBytes: number,
): Promise<FileText> {
  try {
    // Before open, which would wait for the other end of a pipe.
    const found = await stat(path);
    if (!found.isFile()) {
      return refused(found.isDirectory() ? "a folder" : "no regular file");
    }
    await using file = await open(path, "r");
    const { mode } = await file.stat();
    const bytes = await readAtMost(file, maxBytes + 1);
    if (bytes.length > maxBytes) return refused(`more than ${maxBytes} bytes`);
    return {
      isRead: true,
      text: new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      mode,
      isWorldReadable: mayEverybody(mode, 0o004),
      isWorldWritable: mayEverybody(mode, 0o002),
      isReplaceable: await isReplaceable(path),
    };
  } catch (error) {
    if (error instanceof TypeError) return refused("bytes that are not UTF-8");
    const code = (error as NodeJS.ErrnoException).code ?? "";
    return {
      isRead: false,
      isMissing: code === "ENOENT" || code === "ENOTDIR",
      seen: REASONS[code] ?? `a file that cannot be read (${code})`,
    };
  }
}

/**
 * Makes a path absolute: `~/` is the home folder, a relative one is taken from `base`.
 */
export function resolvePath(path: string, base: string, home: string): string {
  return path === "~" || path.startsWith("~/")
    ? join(home, path.slice(1))
    : resolve(base, path);
}

function refused(seen: string): FileText {
  return { isRead: false, isMissing: false, seen };
}

async function readAtMost(file: FileHandle, maxBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  while (length < maxBytes) {
    const part = Buffer.alloc(Math.min(65_536, maxBytes - length));
    const { bytesRead } = await file.read(part, 0, part.length);
    if (bytesRead === 0) break;
    parts.push(part.subarray(0, bytesRead));
    length += bytesRead;
  }
  return Buffer.concat(parts);
}

/** A folder that all may write lets all replace its files, unless it is sticky as /tmp and Kubernetes' secret volumes are. */
async function isReplaceable(path: string): Promise<boolean> {
  const { mode } = await stat(dirname(path));
  return mayEverybody(mode, 0o002) && (mode & 0o1000) === 0;
}

/** Windows has no such bits; Node shows them all as set there. */
function mayEverybody(mode: number, bit: number): boolean {
  return process.platform !== "win32" && (mode & bit) !== 0;
}
