import { type DestinationStream, type Logger, pino } from "pino";
import type { Config } from "../config/config.ts";
import { describeError } from "./error-record.ts";

export type { Logger } from "pino";

const REDACTED = ["authorization", "Authorization", "cookie", "password"];

/** Creates a logger that writes one record per line. */
export function createLogger(
  options: Pick<Config["log"], "level">,
  destination: DestinationStream,
): Logger {
  const settings = {
    level: options.level,
    base: null,
    timestamp: createTimestamp(),
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: describeError },
    // A second safeguard: errors are the only objects that are logged, and none carries headers. A
    // path with a star would be matched against every value of every record.
    redact: REDACTED.map((name) => `err.${name}`),
  };
  const log = pino(settings, destination);
  lineWriters.set(log, {
    begin: (level) => `{"level":"${level}"${settings.timestamp()}`,
    write: (line) => {
      destination.write(line);
    },
  });
  return log;
}

/** Writes prebuilt lines among a logger's own. */
export interface LineWriter {
  /** Returns the beginning of a record: its level and its time. */
  begin(level: string): string;
  /** @param line a record that starts with the text of {@link begin}, with its newline */
  write(line: string): void;
}

const lineWriters = new WeakMap<Logger, LineWriter>();

/** @returns undefined if the logger was not made by {@link createLogger} */
export function lineWriterOf(log: Logger): LineWriter | undefined {
  return lineWriters.get(log);
}

/** The time as pino writes it, formatted once a millisecond: formatting costs more than the rest of a record. */
function createTimestamp(): () => string {
  let atMs = Number.NaN;
  let text = "";
  return () => {
    const nowMs = Date.now();
    if (nowMs !== atMs) {
      atMs = nowMs;
      text = `,"time":"${new Date(nowMs).toISOString()}"`;
    }
    return text;
  };
}

const MAX_LOGGED_LENGTH = 512;

/** Characters that JSON does not escape, and that terminals or line readers interpret. */
const CONTROLS = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** Makes foreign text safe for a record: bounded, and without control sequences; JSON escapes the rest. */
export function clip(text: string): string {
  const bounded =
    text.length <= MAX_LOGGED_LENGTH
      ? text
      : `${text.slice(0, MAX_LOGGED_LENGTH)}…`;
  return bounded.replace(CONTROLS, "\ufffd");
}
