import { type DestinationStream, type Logger, pino } from "pino";
import type { Config } from "../config/config.ts";

export type { Logger } from "pino";

/**
 * A logger that writes one JSON line a record, or lines for people.
 *
 * @param destination in place of standard output
 */
export async function createLogger(
  options: Config["log"],
  destination?: DestinationStream,
): Promise<Logger> {
  const settings = {
    level: options.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    // Paths are a second net only: no object with headers is ever handed to the logger.
    redact: ["*.authorization", "*.Authorization", "*.cookie", "*.password"],
  };
  if (options.format === "pretty") {
    const { default: pretty } = await import("pino-pretty");
    return pino(settings, pretty(destination ? { destination } : {}));
  }
  // Asynchronous and bounded: a blocked reader of the log costs records, never requests.
  return pino(
    settings,
    destination ?? pino.destination({ sync: false, maxLength: 1 << 20 }),
  );
}

const MAX_LOGGED_LENGTH = 512;

/** A foreign text as it may stand in a record: bounded; the JSON form escapes the rest. */
export function clip(text: string): string {
  return text.length <= MAX_LOGGED_LENGTH
    ? text
    : `${text.slice(0, MAX_LOGGED_LENGTH)}…`;
}
