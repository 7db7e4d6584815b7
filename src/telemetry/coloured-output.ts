/**
 * Returns whether text on a stream is coloured: only on a terminal, and never with NO_COLOR.
 *
 * @see https://no-color.org any value but the empty one switches colours off
 */
export function isColouredOutput(
  stream: { readonly isTTY?: boolean },
  env: Readonly<Record<string, string | undefined>>,
): boolean {
  return (
    stream.isTTY === true &&
    (env["NO_COLOR"] ?? "") === "" &&
    env["TERM"] !== "dumb"
  );
}
