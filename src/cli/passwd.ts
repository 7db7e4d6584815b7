import type { Writable } from "node:stream";
import { type PasswordInput, readPassword } from "./read-password.ts";
import { writeOut } from "./write-out.ts";

export interface PasswdOptions {
  readonly user: string;
  readonly stdin: PasswordInput;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** A quarter of a second of computing; the mirror remembers who was right for five minutes. */
const COST = 12;
/** bcrypt reads no more. */
const MAX_PASSWORD_BYTES = 72;

/**
 * Prints one line of an htpasswd file; the password is read from the terminal, twice, or from a
 * pipe.
 *
 * @returns the exit code: 0, 1 where it was interrupted or typed in two ways, 2 for a user or a
 *   password that can be none
 */
export async function runPasswd(options: PasswdOptions): Promise<number> {
  const { user, stdin, stdout, stderr } = options;
  const refuse = (why: string, code = 2): number => {
    stderr.write(`entrepot: ${why}\n`);
    return code;
  };
  // RFC 7617: a user-id with a colon can't be told from its password.
  if (user === "" || /[:\p{Cc}]/u.test(user) || user.trim() !== user) {
    return refuse(
      "a user's name has no colon, no control character and no space at its ends",
    );
  }
  if (user.startsWith("#")) {
    return refuse("a line that begins with # is a comment");
  }
  const prompt = (text: string): void => {
    stderr.write(text);
  };
  const password = await readPassword(stdin, prompt, `Password of ${user}: `);
  if (password === undefined) return refuse("interrupted", 1);
  if (password === "") return refuse("an empty password lets nobody in");
  if (/\p{Cc}/u.test(password)) {
    return refuse("a password has no line break and no control character");
  }
  if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES) {
    return refuse(
      `a password has ${MAX_PASSWORD_BYTES} bytes at most: bcrypt reads no more`,
    );
  }
  if (stdin.isTTY === true) {
    const again = await readPassword(stdin, prompt, "Once more: ");
    if (again !== password) return refuse("the two are not the same", 1);
  }
  const { hash } = await import("bcryptjs");
  await writeOut(stdout, `${user}:${await hash(password, COST)}\n`);
  return 0;
}
