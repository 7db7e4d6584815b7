import { type FileHandle, open, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

/** A file's text, or the reason why it could not be read. */
export type FileText =
  | {
      readonly isRead: true;
      readonly text: string;
      /** As `stat` returns it. */
      readonly mode: number;
      /** Every user of the machine may read it. */
      readonly isWorldReadable: boolean;
      /** Every user of the machine may write to it. */
      readonly isWorldWritable: boolean;
      /** Every user of the machine may replace it by another file. */
      readonly isReplaceable: boolean;
    }
  | {
      readonly isRead: false;
      readonly isMissing: boolean;
      /** The reason, for a fault: a noun phrase. */
      readonly seen: string;
    };

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  ENOTDIR: "no such file",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EISDIR: "a folder",
  ELOOP: "a loop of symbolic links",
};

/** Reads a regular file of UTF-8 text, at most `maxBytes` long. Never throws. */
export async function readTextFile(
  path: string,
  maxBytes: number,
): Promise<FileText> {
  try {
    // Checked before open, which would wait for the other end of a pipe.
    const found = await stat(path);
    if (!found.isFile()) {
      return rejected(found.isDirectory() ? "a folder" : "not a regular file");
    }
    await using file = await open(path, "r");
    const { mode } = await file.stat();
    const bytes = await readAtMost(file, maxBytes + 1);
    if (bytes.length > maxBytes) return rejected(`more than ${maxBytes} bytes`);
    return {
      isRead: true,
      text: new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      mode,
      isWorldReadable: mayEveryUser(mode, 0o004),
      isWorldWritable: mayEveryUser(mode, 0o002),
      isReplaceable: await isReplaceable(path),
    };
  } catch (error) {
    if (error instanceof TypeError) return rejected("bytes that are not UTF-8");
    const code = (error as NodeJS.ErrnoException).code ?? "";
    return {
      isRead: false,
      isMissing: code === "ENOENT" || code === "ENOTDIR",
      seen: REASONS[code] ?? `an unreadable file: ${code}`,
    };
  }
}

/** Makes a path absolute: `~/` is the home folder; a relative path is resolved against `base`. */
export function resolvePath(path: string, base: string, home: string): string {
  return path === "~" || path.startsWith("~/")
    ? join(home, path.slice(1))
    : resolve(base, path);
}

/** Names a file and what is wrong with it, as the first half of a fault. */
export function seenIn(file: string, reason: string): string {
  return `${file} (${reason})`;
}

function rejected(seen: string): FileText {
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

/** A folder that every user may write to lets them replace its files, unless it is sticky, as /tmp and Kubernetes' secret volumes are. */
async function isReplaceable(path: string): Promise<boolean> {
  const { mode } = await stat(dirname(path));
  return mayEveryUser(mode, 0o002) && (mode & 0o1000) === 0;
}

/** Windows has no such bits; Node reports all of them as set there. */
function mayEveryUser(mode: number, bit: number): boolean {
  return process.platform !== "win32" && (mode & bit) !== 0;
}
