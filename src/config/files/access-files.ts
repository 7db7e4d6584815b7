import type { AccessConfig, ServerTlsConfig } from "../config.ts";
import { readTextFile } from "./files.ts";
import { type ParsedHtpasswd, parseHtpasswd } from "./htpasswd.ts";
import { readServerTls } from "./server-tls-files.ts";
import { readTokenKeys } from "./token-keys.ts";
import { findChangeFlaw } from "./secret-file.ts";
import type { PlacedFault } from "../validate.ts";

const MAX_HTPASSWD_BYTES = 1_048_576;

/** What was found wrong, or worth a word, in files that `tls` and `access` name. */
export interface JudgedFiles {
  readonly faults: readonly PlacedFault[];
  readonly warnings: readonly PlacedFault[];
  /** Absolute. */
  readonly paths: readonly string[];
}

/** A file of users, or in words why there is none. Never throws; no word of it is a secret. */
export type ReadHtpasswd =
  | {
      readonly ok: true;
      readonly hashes: (ParsedHtpasswd & { ok: true })["hashes"];
      readonly warnings: readonly PlacedFault[];
    }
  | { readonly ok: false; readonly seen: string; readonly expected: string };

const HTPASSWD_PLACE = ["access", "htpasswdFile"];

export async function readHtpasswd(file: string): Promise<ReadHtpasswd> {
  const read = await readTextFile(file, MAX_HTPASSWD_BYTES);
  if (!read.isRead) {
    const expected = "a readable file of at most 1 MiB";
    return { ok: false, seen: `${file}: ${read.seen}`, expected };
  }
  const parsed = parseHtpasswd(read.text);
  if (!parsed.ok) {
    const seen = `${file}: line ${parsed.line}: ${parsed.seen}`;
    return { ok: false, seen, expected: parsed.expected };
  }
  const flaw = findChangeFlaw(read, file);
  if (flaw !== undefined) return { ok: false, ...flaw };
  // Not refused: what it holds are verifiers, and other tools write it so.
  const warning = {
    path: HTPASSWD_PLACE,
    seen: `${file}: hashes of passwords that everybody on this machine may read, and guess at`,
    expected: `chmod 0600 ${file}, or 0640 with a group that the mirror is in`,
  };
  return {
    ok: true,
    hashes: parsed.hashes,
    warnings: read.isWorldReadable ? [warning] : [],
  };
}

/** Reads all of them once, so that a start or a reload tells every fault together. */
export async function judgeAccessFiles(
  tls: ServerTlsConfig | undefined,
  access: AccessConfig | undefined,
): Promise<JudgedFiles> {
  const faults: PlacedFault[] = [];
  const warnings: PlacedFault[] = [];
  const paths: string[] = [];
  if (tls !== undefined) {
    paths.push(tls.certificateFile, tls.keyFile);
    if (tls.clientCaFile !== undefined) paths.push(tls.clientCaFile);
    const read = await readServerTls(tls);
    if (!read.ok) {
      for (const { key, seen, expected } of read.flaws) {
        faults.push({ path: ["tls", key], seen, expected });
      }
    }
  }
  if (access?.htpasswdFile !== undefined) {
    paths.push(access.htpasswdFile);
    const read = await readHtpasswd(access.htpasswdFile);
    if (read.ok) warnings.push(...read.warnings);
    else {
      const { seen, expected } = read;
      faults.push({ path: HTPASSWD_PLACE, seen, expected });
    }
  }
  if (access?.tokenServer !== undefined) {
    const { keys } = access.tokenServer;
    paths.push(keys.file);
    const read = await readTokenKeys(keys);
    if (!read.ok) {
      const key = keys.kind === "jwks" ? "jwksFile" : "certificateFile";
      const { seen, expected } = read;
      faults.push({ path: ["access", "tokenServer", key], seen, expected });
    }
  }
  return { faults, warnings, paths };
}
