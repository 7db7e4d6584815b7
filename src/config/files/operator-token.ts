import { Secret } from "../config.ts";
import { readTextFile } from "./files.ts";
import { findSecretFlaw } from "./secret-file.ts";
import type { PlacedFault } from "../validate.ts";

const MAX_TOKEN_FILE_BYTES = 4_096;
/** What a header can carry (RFC 6750), and nobody guesses. */
const TOKEN = /^[A-Za-z0-9._~+/-]{16,}=*$/;
const PLACE = ["operator", "tokenFile"];

/** What `operator.tokenFile` holds, or why it is refused. */
export interface OperatorToken {
  readonly token: Secret | undefined;
  /** Absolute. */
  readonly paths: readonly string[];
  readonly faults: readonly PlacedFault[];
}

/** Never throws; no word of it is the token. */
export async function readOperatorToken(
  tokenFile: string | undefined,
  resolve: (path: string) => string,
): Promise<OperatorToken> {
  if (!tokenFile) return { token: undefined, paths: [], faults: [] };
  const file = resolve(tokenFile);
  const paths = [file];
  const refuse = (seen: string, expected: string): OperatorToken => {
    const fault = { path: PLACE, seen: `${file}: ${seen}`, expected };
    return { token: undefined, paths, faults: [fault] };
  };
  const read = await readTextFile(file, MAX_TOKEN_FILE_BYTES);
  if (!read.isRead)
    return refuse(read.seen, "a readable file of at most 4 KiB");
  const text = read.text.replace(/\r?\n$/, "");
  if (!TOKEN.test(text)) {
    return refuse(
      "no token",
      "one line of 16 characters or more of A-Z a-z 0-9 . _ ~ + / -",
    );
  }
  const flaw = findSecretFlaw(read, file);
  const faults = flaw === undefined ? [] : [{ path: PLACE, ...flaw }];
  return { token: new Secret(text), paths, faults };
}
