import type { PlacedFault } from "../fault.ts";
import { Secret } from "../config.ts";
import { readTextFile, seenIn } from "./files.ts";
import { findSecretFlaw } from "./secret-file.ts";

const MAX_TOKEN_FILE_BYTES = 4_096;
/** Characters that a header can carry (RFC 6750), and a length that cannot be guessed. */
const TOKEN = /^[A-Za-z0-9._~+/-]{16,}=*$/;
const PLACE = ["operator", "tokenFile"];

/** The content of `operator.tokenFile`, or the faults of the file. */
export interface OperatorToken {
  readonly token: Secret | undefined;
  /** Absolute. */
  readonly paths: readonly string[];
  readonly faults: readonly PlacedFault[];
}

/** Reads the operator token. Never throws; no fault holds a part of the token. */
export async function readOperatorToken(
  tokenFile: string | undefined,
  resolve: (path: string) => string,
): Promise<OperatorToken> {
  if (!tokenFile) return { token: undefined, paths: [], faults: [] };
  const file = resolve(tokenFile);
  const paths = [file];
  const reject = (seen: string, expected: string): OperatorToken => {
    const fault = { path: PLACE, seen: seenIn(file, seen), expected };
    return { token: undefined, paths, faults: [fault] };
  };
  const read = await readTextFile(file, MAX_TOKEN_FILE_BYTES);
  if (!read.isRead)
    return reject(read.seen, "a readable file no larger than 4 KiB");
  const text = read.text.replace(/\r?\n$/, "");
  if (!TOKEN.test(text)) {
    return reject(
      "an invalid token",
      "one line of 16 characters or more of A-Z a-z 0-9 . _ ~ + / -",
    );
  }
  const flaw = findSecretFlaw(read, file);
  const faults = flaw === undefined ? [] : [{ path: PLACE, ...flaw }];
  return { token: new Secret(text), paths, faults };
}
