import type { Writable } from "node:stream";
import type { ReadStream } from "node:tty";

/** The longest time that an open question may hold the storage root. */
const MAX_WAIT_MS = 5 * 60_000;

/** The input that an answer is read from. */
export type ConfirmInput = NodeJS.ReadableStream &
  Partial<Pick<ReadStream, "isTTY">>;

export type Confirmation = "agreed" | "declined" | "no terminal";

/** Asks the operator for confirmation. */
export type Confirm = (question: string) => Promise<Confirmation>;

/**
 * Asks a question on a terminal and reads one line. `y` and `yes` agree; every other line, the end
 * of the input and five minutes without an answer decline.
 */
export async function confirmOnTerminal(
  input: ConfirmInput,
  output: Writable & { readonly isTTY?: boolean },
  question: string,
): Promise<Confirmation> {
  if (input.isTTY !== true || output.isTTY !== true) return "no terminal";
  const answered = Promise.withResolvers<string>();
  const take = (part: Buffer | string): void =>
    answered.resolve(part.toString());
  const decline = (): void => answered.resolve("");
  const timer = setTimeout(decline, MAX_WAIT_MS);
  input.once("data", take);
  input.once("end", decline);
  input.once("error", decline);
  output.write(`${question} [y/N] `);
  input.resume();
  const line = await answered.promise;
  clearTimeout(timer);
  input.off("data", take);
  input.off("end", decline);
  input.off("error", decline);
  input.pause();
  return /^y(?:es)?$/i.test(line.trim()) ? "agreed" : "declined";
}
