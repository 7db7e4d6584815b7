import type { ReadStream } from "node:tty";

/** More than bcrypt reads, so that a too long password is recognized. */
const MAX_INPUT_BYTES = 4_096;

/** The input that a password is read from: a terminal or a pipe. */
export type PasswordInput = NodeJS.ReadableStream &
  Partial<Pick<ReadStream, "isTTY" | "setRawMode">>;

const ENTER = new Set(["\r", "\n"]);
const END_OF_INPUT = "\u0004";
const INTERRUPT = "\u0003";
const ERASE = new Set(["\u007f", "\b"]);

/**
 * Reads a password: from a terminal, after a prompt, one line without echo; otherwise the whole input
 * without a trailing newline.
 *
 * @returns undefined if the user interrupted it
 */
export async function readPassword(
  input: PasswordInput,
  prompt: (text: string) => void,
  text: string,
): Promise<string | undefined> {
  return input.isTTY === true && input.setRawMode !== undefined
    ? readHidden(input, prompt, text)
    : (await readAll(input)).replace(/\r?\n$/, "");
}

async function readAll(input: PasswordInput): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of input) {
    const bytes = Buffer.from(part);
    parts.push(bytes);
    length += bytes.length;
    if (length > MAX_INPUT_BYTES) break;
  }
  return Buffer.concat(parts).toString("utf8");
}

/** Reads a line in raw mode, in which the terminal neither echoes nor edits the input. */
function readHidden(
  input: PasswordInput,
  prompt: (text: string) => void,
  text: string,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  let typed: string[] = [];
  const end = (password: string | undefined): void => {
    input.off("data", take);
    input.pause();
    input.setRawMode?.(false);
    prompt("\n");
    resolve(password);
  };
  const take = (part: Buffer | string): void => {
    for (const key of part.toString()) {
      if (key === INTERRUPT) return end(undefined);
      if (ENTER.has(key) || key === END_OF_INPUT) return end(typed.join(""));
      if (ERASE.has(key)) typed = typed.slice(0, -1);
      else if (typed.length < MAX_INPUT_BYTES) typed.push(key);
    }
  };
  prompt(text);
  input.setRawMode?.(true);
  input.on("data", take);
  input.resume();
  return promise;
}
