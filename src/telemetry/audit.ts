import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { pino } from "pino";
import { type Clock, systemClock } from "./clock.ts";
import { flushWithin } from "./flush-within.ts";
import { clip } from "./logger.ts";

/**
 * What somebody may have to answer for later; a closed list. Names come as they were asked for, and
 * no record ever holds a password, a token or a query.
 */
export type AuditEvent =
  /** Somebody was let in, but not to what they asked for. */
  | {
      readonly event: "denied";
      readonly client: string;
      /** Absent: anonymous. */
      readonly user?: string | undefined;
      readonly method: string;
      /** `manifest`, `tag`, `blob`, `tags`, `referrers`, `catalog`, `api`. */
      readonly kind: string;
      /** `upstream/repository`. */
      readonly repository?: string | undefined;
      readonly reference?: string | undefined;
      /** Why, in our own words. */
      readonly reason?: string | undefined;
    }
  | {
      readonly event: "login-failed";
      readonly client: string;
      /** As the client wrote it; absent for a token. */
      readonly user?: string | undefined;
      readonly reason: "password" | "token" | "limited";
    }
  | {
      readonly event: "reloaded";
      readonly source: "signal" | "file";
      /** Top-level keys of the configuration that are in force anew. */
      readonly changed: readonly string[];
    }
  | {
      readonly event: "reload-refused";
      readonly source: "signal" | "file";
      /** Each as `check-config` prints it. */
      readonly faults: readonly string[];
    }
  /** The last line of a stream: those that follow go elsewhere. */
  | {
      readonly event: "audit-moved";
      /** A file, or `-`; null: nothing is recorded any more. */
      readonly to: string | null;
    }
  | {
      readonly event: "purged" | "pinned" | "unpinned";
      /** Who asked: an address, or `command-line`. */
      readonly client: string;
      /** `upstream/repository:tag` or `…@digest`. */
      readonly reference: string;
      readonly digest?: string | undefined;
    }
  | {
      readonly event: "tag-moved";
      readonly upstream: string;
      readonly repository: string;
      readonly tag: string;
      readonly from: string;
      readonly to: string;
    };

/** The record of who was refused and who changed what, on a stream of its own. */
export interface Audit {
  /** Never throws and never waits. */
  record(event: AuditEvent): void;
  /** Opens the file anew, for programs that move it away; nothing where it is no file. */
  reopen(): void;
  /** Ends when what was recorded is written, or cannot be in a time that anybody waits for. */
  close(): Promise<void>;
}

/** Where nothing is recorded. */
export const NO_AUDIT: Audit = {
  record: () => {},
  reopen: () => {},
  close: () => Promise.resolve(),
};

/** What takes the lines. */
export interface AuditSink {
  /** @param line with its newline */
  write(line: string): void;
  reopen(): void;
  close(): Promise<void>;
}

/**
 * Writes one JSON line a record: `{"time": "2026-01-31T12:00:00.000Z", "seq": 1, "event": "denied", …}`.
 * `seq` counts from 1 at every start, so that a line that is missing is seen.
 */
export function createAudit(
  sink: AuditSink,
  clock: Clock = systemClock,
): Audit {
  let seq = 0;
  return {
    record: (event) => {
      seq += 1;
      const time = new Date(clock.nowMs()).toISOString();
      sink.write(`${JSON.stringify({ time, seq, ...event }, bounded)}\n`);
    },
    reopen: () => sink.reopen(),
    close: () => sink.close(),
  };
}

const MAX_BUFFERED_BYTES = 4 << 20;
const OWNER_ONLY = 0o600;

/**
 * Opens the stream of `audit.file`.
 *
 * @param file absolute, appended to and made where it is not there, for its owner alone; `-`:
 *   standard output
 * @param onFault told of what could not be written
 * @param standard the descriptor that `-` stands for: commands print their answer on 1
 * @throws the system's error where the file can't be opened
 */
export async function openAudit(
  file: string,
  onFault: (error: unknown) => void,
  standard: 1 | 2 = 1,
): Promise<Audit> {
  const isFile = file !== "-";
  // The stream below would only tell of a fault when the process ends.
  const probe = () => closeSync(openSync(file, "a", OWNER_ONLY));
  if (isFile) probe();
  const stream = pino.destination({
    dest: isFile ? file : standard,
    append: true,
    mode: OWNER_ONLY,
    // Requests never wait for a disk or for the reader of a pipe.
    sync: false,
    // Written at once; with 0 a flush would wait for nothing.
    minLength: 1,
    maxLength: MAX_BUFFERED_BYTES,
  });
  if (isFile) await once(stream, "ready");
  stream.on("error", onFault);
  stream.on("drop", () => {
    onFault(new Error("audit records are lost: they cannot be written"));
  });
  return createAudit({
    write: (line) => {
      stream.write(line);
    },
    reopen: () => {
      if (!isFile) return;
      try {
        probe();
        stream.reopen();
      } catch (error) {
        onFault(error);
      }
    },
    close: async () => {
      const isOut = await flushWithin(stream);
      // Standard output is the log's too; but an exit would wait for what is left in the stream.
      if (isFile || !isOut) stream.destroy();
    },
  });
}

/** Foreign texts may be of any length. */
function bounded(_key: string, value: unknown): unknown {
  return typeof value === "string" ? clip(value) : value;
}
