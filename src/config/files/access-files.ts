import type { Flaw, PlacedFault } from "../fault.ts";
import type { AccessConfig, ServerTlsConfig } from "../config.ts";
import { readTextFile, seenIn } from "./files.ts";
import { type ParsedHtpasswd, parseHtpasswd } from "./htpasswd.ts";
import { readServerTls } from "./server-tls-files.ts";
import { readTokenKeys } from "./token-keys.ts";
import { findChangeFlaw } from "./secret-file.ts";

const MAX_HTPASSWD_BYTES = 1_048_576;

/** Faults and warnings about the files that `tls` and `access` name. */
export interface CheckedFiles {
  readonly faults: readonly PlacedFault[];
  readonly warnings: readonly PlacedFault[];
  /** Absolute. */
  readonly paths: readonly string[];
}

/** The users of a file, or the reason why it was rejected, without secrets. */
export type ReadHtpasswd =
  | {
      readonly ok: true;
      readonly hashes: (ParsedHtpasswd & { ok: true })["hashes"];
      readonly warnings: readonly PlacedFault[];
    }
  | ({ readonly ok: false } & Flaw);

const HTPASSWD_PLACE = ["access", "htpasswdFile"];

/** Reads a file of users. Never throws. */
export async function readHtpasswd(file: string): Promise<ReadHtpasswd> {
  const read = await readTextFile(file, MAX_HTPASSWD_BYTES);
  if (!read.isRead) {
    const expected = "a readable file no larger than 1 MiB";
    return { ok: false, seen: seenIn(file, read.seen), expected };
  }
  const parsed = parseHtpasswd(read.text);
  if (!parsed.ok) {
    const seen = seenIn(file, `line ${parsed.line}: ${parsed.seen}`);
    return { ok: false, seen, expected: parsed.expected };
  }
  const flaw = findChangeFlaw(read, file);
  if (flaw !== undefined) return { ok: false, ...flaw };
  // Not rejected: the file holds only verifiers, and other tools write it with this mode.
  const warning = {
    path: HTPASSWD_PLACE,
    seen: seenIn(
      file,
      "password hashes that every user of this machine may read",
    ),
    expected: "mode 0600, or 0640 with a group of the mirror",
    fix: `run chmod 0600 ${file}`,
  };
  return {
    ok: true,
    hashes: parsed.hashes,
    warnings: read.isWorldReadable ? [warning] : [],
  };
}

/** Reads every file once, so that a start or a reload reports all faults together. */
export async function checkAccessFiles(
  tls: ServerTlsConfig | undefined,
  access: AccessConfig | undefined,
): Promise<CheckedFiles> {
  const faults: PlacedFault[] = [];
  const warnings: PlacedFault[] = [];
  const paths: string[] = [];
  if (tls !== undefined) {
    paths.push(tls.certificateFile, tls.keyFile);
    if (tls.clientCaFile !== undefined) paths.push(tls.clientCaFile);
    const read = await readServerTls(tls);
    if (!read.ok) {
      for (const { key, ...flaw } of read.flaws) {
        faults.push({ path: ["tls", key], ...flaw });
      }
    }
  }
  if (access?.htpasswdFile !== undefined) {
    paths.push(access.htpasswdFile);
    const read = await readHtpasswd(access.htpasswdFile);
    if (read.ok) warnings.push(...read.warnings);
    else {
      const { ok: _ok, ...flaw } = read;
      faults.push({ path: HTPASSWD_PLACE, ...flaw });
    }
  }
  if (access?.tokenServer !== undefined) {
    const { keys } = access.tokenServer;
    paths.push(keys.file);
    const read = await readTokenKeys(keys);
    if (!read.ok) {
      const key = keys.kind === "jwks" ? "jwksFile" : "certificateFile";
      const { ok: _ok, ...flaw } = read;
      faults.push({ path: ["access", "tokenServer", key], ...flaw });
    }
  }
  return { faults, warnings, paths };
}
