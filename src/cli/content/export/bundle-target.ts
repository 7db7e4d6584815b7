import { randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import {
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rm,
  stat,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { messageOf } from "../../../telemetry/error-record.ts";
import type { CommandOutput } from "../../declare-command.ts";
import { Failed } from "../../images/image-backend.ts";

/** Where a bundle is written. Paths are absolute. */
export type BundleTarget =
  | { readonly kind: "archive"; readonly path: string }
  /** A folder that does not exist or is empty. */
  | { readonly kind: "folder"; readonly path: string }
  /** A pipe or a device that has a name; it is never replaced. */
  | { readonly kind: "device"; readonly path: string }
  | { readonly kind: "stdout"; readonly stdout: CommandOutput };

const COMPRESSED = /\.(?:tgz|zip|tar\.[a-z0-9]+)$/i;
const MEMBER = /^(?:oci-layout|index\.json|blobs\/(sha256|sha512)\/[0-9a-f]+)$/;

/**
 * Reads the value of `-o`: `-`, an archive whose name ends in `.tar`, or a folder.
 *
 * @throws Failed
 */
export async function readTarget(
  output: string,
  { cwd, stdout }: { readonly cwd: string; readonly stdout: CommandOutput },
): Promise<BundleTarget> {
  if (output === "-") {
    if (stdout.isTTY === true) {
      throw new Failed(
        2,
        "-o: standard output is a terminal; expected a file or a pipe",
      );
    }
    return { kind: "stdout", stdout };
  }
  if (COMPRESSED.test(output)) {
    throw new Failed(
      2,
      `-o: got ${output}; expected a name that ends in .tar, a folder, or -, as in 'entrepot export … -o - | zstd > ${output}'`,
    );
  }
  const named = resolve(cwd, output);
  // The target of a symbolic link is written, not the link.
  const path = await realpath(named).catch(() => named);
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() === true) {
    if ((await readdir(path)).length === 0) return { kind: "folder", path };
    throw new Failed(
      2,
      `-o: the folder ${output} is not empty; expected a new or an empty one`,
    );
  }
  if (found === undefined) {
    return { kind: /\.tar$/i.test(path) ? "archive" : "folder", path };
  }
  return { kind: found.isFile() ? "archive" : "device", path };
}

/**
 * Writes a bundle. A file or a folder is written under a temporary name beside its own, which it gets when
 * it is complete and synced; nothing is left of one that is not.
 *
 * @throws Failed if the target cannot be written; the error of the archive
 */
export async function writeBundle(
  archive: AsyncIterable<Uint8Array>,
  target: BundleTarget,
  signal: AbortSignal,
): Promise<void> {
  if (target.kind === "stdout") {
    await writing("standard output", () =>
      pipeline(archive, target.stdout, { signal, end: false }),
    );
    return;
  }
  const { path } = target;
  if (target.kind === "device") {
    await writing(path, () =>
      pipeline(archive, createWriteStream(path), { signal }),
    );
    return;
  }
  const temporary = join(
    dirname(path),
    `.${basename(path)}.${randomBytes(6).toString("hex")}.partial`,
  );
  try {
    await writing(path, async () => {
      await (target.kind === "archive"
        ? writeFile(archive, temporary, signal)
        : writeFolder(archive, temporary, signal));
      await rename(temporary, path);
      await syncFolder(dirname(path));
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** The failure of an archive, as opposed to one of its target. */
export class ArchiveError extends Error {
  constructor(cause: unknown) {
    super(messageOf(cause), { cause });
    this.name = "ArchiveError";
  }
}

/** Names the target in its failures. */
async function writing(
  name: string,
  write: () => Promise<void>,
): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (error instanceof ArchiveError) throw error;
    throw new Failed(1, `${name}: ${messageOf(error)}`);
  }
}

/** Distinguishes failures of an archive from those of its target. */
export async function* marked(
  archive: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  try {
    yield* archive;
  } catch (error) {
    throw new ArchiveError(error);
  }
}

async function writeFile(
  content: AsyncIterable<Uint8Array>,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  await pipeline(
    content,
    createWriteStream(path, { flags: "wx", flush: true }),
    { signal },
  );
}

/** Writes the members of an archive of this program as files. */
async function writeFolder(
  archive: AsyncIterable<Uint8Array>,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const { createTarDecoder } = await import("modern-tar");
  await mkdir(path);
  const { readable, writable } = createTarDecoder({ strict: true });
  const bytes = Readable.toWeb(
    Readable.from(archive),
  ) as ReadableStream<Uint8Array>;
  const read = bytes.pipeTo(writable, { signal });
  const folders = new Set<string>();
  const write = async (): Promise<void> => {
    for await (const { header, body } of readable) {
      if (header.type !== "file" || !MEMBER.test(header.name)) {
        throw new Error(`got the member ${header.name}; expected a bundle`);
      }
      const file = join(path, header.name);
      if (!folders.has(dirname(file))) {
        await mkdir(dirname(file), { recursive: true });
        folders.add(dirname(file));
      }
      await writeFile(body as AsyncIterable<Uint8Array>, file, signal);
    }
  };
  // The folder is removed after a failure, when nothing writes into it any longer.
  const [written, sent] = await Promise.allSettled([write(), read]);
  if (sent.status === "rejected" && sent.reason instanceof ArchiveError) {
    throw sent.reason;
  }
  for (const result of [written, sent]) {
    if (result.status === "rejected") throw result.reason;
  }
  for (const folder of folders) await syncFolder(folder);
}

/** Makes the names in a folder durable, on systems that can. */
async function syncFolder(path: string): Promise<void> {
  try {
    await using folder = await open(path);
    await folder.sync();
  } catch {
    return;
  }
}
