import { isColouredOutput } from "../../telemetry/coloured-output.ts";
import type { CommandOutput } from "../declare-command.ts";

/** SGR codes of the colours that commands use. */
const CODES = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
} as const;

export type Paint = keyof typeof CODES;

/** What a stream can show. */
export interface OutputStyle {
  /** Columns of the terminal; undefined if the text is not shown on one, so that nothing is cut. */
  readonly width: number | undefined;
  readonly isColoured: boolean;
}

/** Text for a pipe, a file or a test. */
export const PLAIN: OutputStyle = { width: undefined, isColoured: false };

/** Returns the style of a stream: colours and a width only on a terminal. */
export function outputStyle(
  stream: Pick<CommandOutput, "isTTY" | "columns">,
  env: Readonly<Record<string, string | undefined>>,
): OutputStyle {
  if (stream.isTTY !== true) return PLAIN;
  const { columns = 0 } = stream;
  return {
    // Some pseudo-terminals report no size, as 0.
    width: columns > 0 ? columns : undefined,
    isColoured: isColouredOutput(stream, env),
  };
}

/** Paints a text if the stream shows colours. */
export function paint(
  { isColoured }: Pick<OutputStyle, "isColoured">,
  colour: Paint,
  text: string,
): string {
  if (!isColoured || text === "") return text;
  const [on, off] = CODES[colour];
  return `\u001B[${on}m${text}\u001B[${off}m`;
}

/**
 * Replaces control and formatting characters, so that text of a registry or of an image cannot move
 * the cursor or change what the terminal shows.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\uFFFD");
}
