import type { Writable } from "node:stream";
import { type PasswordInput, readPassword } from "./read-password.ts";
import { writeOut } from "../write-out.ts";

export interface PasswdOptions {
  readonly user: string;
  readonly stdin: PasswordInput;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** Takes a quarter of a second; the mirror remembers verified passwords for five minutes. */
const COST = 12;
/** bcrypt ignores further bytes. */
const MAX_PASSWORD_BYTES = 72;

/**
 * Prints one line for an htpasswd file. Reads the password from the terminal, twice, or from a pipe.
 *
 * @returns the exit code: 0; 1 if it was interrupted or the passwords differ; 2 for an invalid user
 *   or password
 */
export async function runPasswd(options: PasswdOptions): Promise<number> {
  const { user, stdin, stdout, stderr } = options;
  const refuse = (why: string, code = 2): number => {
    stderr.write(`entrepot: ${why}\n`);
    return code;
  };
  // RFC 7617: a colon ends the user-id.
  if (user === "" || /[:\p{Cc}]/u.test(user) || user.trim() !== user) {
    return refuse(
      "got an invalid user name; expected one without colons, control characters and surrounding spaces",
    );
  }
  if (user.startsWith("#")) {
    return refuse(
      "got a user name that begins with #, which starts a comment; expected another first character",
    );
  }
  const prompt = (text: string): void => {
    stderr.write(text);
  };
  const password = await readPassword(stdin, prompt, `Password of ${user}: `);
  if (password === undefined) return refuse("interrupted; printed nothing", 1);
  if (password === "")
    return refuse("got an empty password; expected at least one character");
  if (/\p{Cc}/u.test(password)) {
    return refuse(
      "got a password with a control character; expected printable characters on one line",
    );
  }
  if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES) {
    return refuse(
      `got a password of ${Buffer.byteLength(password)} bytes; expected at most ${MAX_PASSWORD_BYTES}, since bcrypt ignores the rest`,
    );
  }
  if (stdin.isTTY === true) {
    const again = await readPassword(stdin, prompt, "Repeat the password: ");
    if (again !== password)
      return refuse(
        "got two different passwords; expected the same one twice",
        1,
      );
  }
  const { hash } = await import("bcryptjs");
  await writeOut(stdout, `${user}:${await hash(password, COST)}\n`);
  return 0;
}
