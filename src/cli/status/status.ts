import { setTimeout as delay } from "node:timers/promises";
import type { Config } from "../../config/config.ts";
import { messageOf } from "../../telemetry/error-record.ts";
import { loadCommandConfig } from "../command-config.ts";
import type { CommandIo } from "../declare-command.ts";
import { outputStyle } from "../output/output-style.ts";
import { findRunningMirror, unreachableText } from "../running-mirror.ts";
import { writeOut } from "../write-out.ts";
import { type MirrorReport, readReport } from "./mirror-report.ts";
import { statusLine, statusText } from "./status-text.ts";

/** The pause between two reports of `--watch`. */
const WATCH_MS = 2_000;

/** Moves the cursor to the top left, and clears what follows it. */
const HOME = "\u001B[H";
const CLEAR_LINE = "\u001B[K";
const CLEAR_BELOW = "\u001B[J";
/** Scrolls what is visible out of the way, so that it stays in the terminal's history. */
const CLEAR_SCREEN = "\u001B[2J";

export interface StatusOptions {
  readonly io: CommandIo;
  readonly configFile: string | undefined;
  readonly json: boolean;
  readonly watch: boolean;
  /** Between two reports; default: two seconds. */
  readonly watchMs?: number;
}

/**
 * Prints the status of the running mirror; with `--watch` until the process receives a signal or its
 * output is closed.
 *
 * @returns the exit code: 0; 1 if no mirror answers; 2 for an invalid configuration
 */
export async function runStatus(options: StatusOptions): Promise<number> {
  const { io, watch } = options;
  const { stderr } = io;
  const config = await loadCommandConfig({
    ...io,
    configFile: options.configFile,
  });
  if (config === undefined) return 2;
  let first: MirrorReport;
  try {
    first = await reportOf(config);
  } catch (error) {
    await writeOut(stderr, `entrepot: ${messageOf(error)}\n`);
    return 1;
  }
  if (watch) await watchMirror(options, config, first);
  else await writeOut(io.stdout, textOf(options, first));
  return 0;
}

/** @throws Error with the reason if no mirror answers */
async function reportOf(config: Config): Promise<MirrorReport> {
  const ask = await findRunningMirror(config);
  if (ask === undefined) {
    throw new Error(
      `${unreachableText(config.operator)}; 'entrepot serve' starts the mirror`,
    );
  }
  return readReport(ask);
}

function textOf({ io, json }: StatusOptions, report: MirrorReport): string {
  return json
    ? `${JSON.stringify(report, undefined, 2)}\n`
    : statusText(report, outputStyle(io.stdout, io.env), Date.now());
}

/** Prints reports until the output is closed. A mirror that does not answer is asked again. */
async function watchMirror(
  options: StatusOptions,
  config: Config,
  first: MirrorReport,
): Promise<void> {
  const { io, json, watchMs = WATCH_MS } = options;
  const { stdout, stderr } = io;
  const isDrawn = stdout.isTTY === true && !json;
  if (isDrawn) await writeOut(stdout, CLEAR_SCREEN);
  let report: MirrorReport | undefined = first;
  let failure = "";
  for (;;) {
    let hasReader: boolean;
    if (isDrawn) {
      const text =
        report === undefined ? `${failure}\n` : textOf(options, report);
      hasReader = await writeOut(stdout, screenOf(text, stdout.rows));
    } else if (report === undefined) {
      hasReader = await writeOut(stderr, `entrepot: ${failure}\n`);
    } else {
      const line = json
        ? `${JSON.stringify(report)}\n`
        : statusLine(report, Date.now());
      hasReader = await writeOut(stdout, line);
    }
    if (!hasReader) return;
    await delay(watchMs);
    try {
      report = await reportOf(config);
    } catch (error) {
      report = undefined;
      failure = messageOf(error);
    }
  }
}

/** Replaces what the terminal shows, without a moment in which it is empty. */
function screenOf(text: string, rows: number | undefined): string {
  const lines = text.trimEnd().split("\n");
  // The last line stays free for the cursor.
  const shown =
    rows === undefined || rows === 0 ? lines : lines.slice(0, rows - 1);
  return `${HOME}${shown.map((line) => `${line}${CLEAR_LINE}\n`).join("")}${CLEAR_BELOW}`;
}
