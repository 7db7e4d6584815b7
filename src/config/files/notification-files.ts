import { Secret } from "../config.ts";
import type { ConfigDocument, Pruned } from "../document.ts";
import type { KeyPath, PlacedFault } from "../fault.ts";
import { readTextFile, seenIn } from "./files.ts";
import { findSecretFlaw } from "./secret-file.ts";

const MAX_HEADERS_FILE_BYTES = 16_384;
const MAX_HEADERS = 32;
const EXPECTED = "a readable file no larger than 16 KiB";
/** A token (RFC 9110, 5.6.2), and a value of visible ASCII with inner spaces. */
const HEADER =
  /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~](?:[ -~]*[!-~])?)[ \t]*$/;
/** Headers that the sender of events sets, or that describe the connection. */
const RESERVED: ReadonlySet<string> = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** The content of the files of `notifications`. */
export interface NotificationFiles {
  /** By the position of the webhook. */
  readonly headers: readonly ReadonlyMap<string, Secret>[];
  /** Absolute paths. */
  readonly paths: readonly string[];
  readonly faults: readonly PlacedFault[];
}

/** Reads the headers of every webhook. Never throws; no fault contains a part of a header's value. */
export async function readNotificationFiles(
  { notifications = [] }: Pruned<ConfigDocument>,
  resolve: (path: string) => string,
): Promise<NotificationFiles> {
  const headers: ReadonlyMap<string, Secret>[] = [];
  const paths: string[] = [];
  const faults: PlacedFault[] = [];
  for (const [index, notification] of notifications.entries()) {
    const found = new Map<string, Secret>();
    headers.push(found);
    if (!notification?.headersFile) continue;
    const file = resolve(notification.headersFile);
    const path = ["notifications", index, "headersFile"];
    paths.push(file);
    faults.push(...(await readHeaders(file, path, found)));
  }
  return { headers, paths, faults };
}

async function readHeaders(
  file: string,
  path: KeyPath,
  found: Map<string, Secret>,
): Promise<PlacedFault[]> {
  const read = await readTextFile(file, MAX_HEADERS_FILE_BYTES);
  if (!read.isRead) {
    return [{ path, seen: seenIn(file, read.seen), expected: EXPECTED }];
  }
  const reject = (seen: string, expected: string): PlacedFault[] => [
    { path, seen: seenIn(file, seen), expected },
  ];
  const names = new Set<string>();
  for (const [index, line] of read.text.split(/\r?\n/).entries()) {
    if (line.trim() === "") continue;
    const [, name, value] = HEADER.exec(line) ?? [];
    if (name === undefined || value === undefined) {
      return reject(`line ${index + 1} is not a header`, "lines NAME: VALUE");
    }
    const key = name.toLowerCase();
    if (RESERVED.has(key)) {
      return reject(`line ${index + 1} has the header ${key}`, "other headers");
    }
    if (names.has(key)) {
      return reject(`line ${index + 1} repeats a header`, "each header once");
    }
    names.add(key);
    found.set(name, new Secret(value));
  }
  if (found.size > MAX_HEADERS) {
    return reject(`${found.size} headers`, `at most ${MAX_HEADERS} headers`);
  }
  const flaw = findSecretFlaw(read, file);
  return flaw === undefined ? [] : [{ path, ...flaw }];
}
