import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { pino } from "pino";
import { type Clock, systemClock } from "./clock.ts";
import { flushWithin } from "./flush-within.ts";
import { clip } from "./logger.ts";

/**
 * Security-relevant events; a closed list. Names are as the client or operator wrote them; no record
 * ever holds a password, a token or a query string.
 */
export type AuditEvent =
  /** An identified client was refused what it requested. */
  | {
      readonly event: "denied";
      readonly client: string;
      /** Absent: anonymous. */
      readonly user?: string | undefined;
      readonly method: string;
      /** `manifest`, `tag`, `blob`, `tags`, `referrers`, `catalog`, `ping`, `other` (also uploads), `api`. */
      readonly kind: string;
      /** `registry/repository`. */
      readonly repository?: string | undefined;
      readonly reference?: string | undefined;
      /** The reason, in text of this program. */
      readonly reason?: string | undefined;
    }
  | {
      readonly event: "login-failed";
      readonly client: string;
      /** As the client sent it; absent for a token. */
      readonly user?: string | undefined;
      readonly reason: "password" | "token" | "limited";
    }
  | {
      readonly event: "reloaded";
      readonly source: "signal" | "file";
      /** Top-level keys of the configuration that were applied with a new value. */
      readonly changed: readonly string[];
    }
  | {
      readonly event: "reload-refused";
      readonly source: "signal" | "file";
      /** Faults as `check-config` prints them. */
      readonly faults: readonly string[];
    }
  /** The last record of a stream; later records go to another. */
  | {
      readonly event: "audit-moved";
      /** A file, or `-`; null: auditing ends. */
      readonly to: string | null;
    }
  | {
      readonly event: "purged" | "pinned" | "unpinned" | "imported";
      /** The origin of the request: an address, or `command-line`. */
      readonly client: string;
      /** Absent: anonymous, or an operator. */
      readonly user?: string | undefined;
      /** `upstream/repository:tag` or `…@digest`. */
      readonly reference: string;
      readonly digest?: string | undefined;
    }
  /** Content of a hosted repository was pushed or deleted. */
  | {
      readonly event: "pushed" | "deleted";
      readonly client: string;
      /** Absent: anonymous. */
      readonly user?: string | undefined;
      /** `registry/repository:tag` or `…@digest`. */
      readonly reference: string;
      readonly digest?: string | undefined;
    }
  /** An operator gave an image a tag in a hosted repository, or deleted such a tag. */
  | {
      readonly event: "tagged" | "untagged";
      readonly client: string;
      /** `registry/repository:tag`. */
      readonly reference: string;
      /** Of `tagged`: the image that got the tag. */
      readonly source?: string;
      readonly digest: string;
    }
  /** An operator started a garbage collection. */
  | {
      readonly event: "collected";
      readonly client: string;
      /** Tags and manifests that retention deleted. */
      readonly deletions: number;
      readonly blobs: number;
      readonly bytes: number;
    }
  /** An operator exported a bundle. */
  | {
      readonly event: "exported";
      readonly client: string;
      readonly images: number;
      /** The first hundred, as `registry/repository:tag` or `…@digest`. */
      readonly references: readonly string[];
      readonly blobs: number;
      readonly bytes: number;
    }
  /** An operator started work in the server, or cancelled it. */
  | {
      readonly event: "job-started" | "job-cancelled";
      readonly client: string;
      /** The job's id. */
      readonly job: string;
    }
  /** An operator took over the storage folder of another registry. */
  | {
      readonly event: "taken-over";
      readonly client: string;
      /** The folder. */
      readonly source: string;
      /** An upstream, or `registry/path` of a hosted one. */
      readonly target: string;
      readonly tags: number;
      readonly manifests: number;
      readonly blobs: number;
      readonly bytes: number;
    }
  | {
      readonly event: "tag-moved";
      readonly upstream: string;
      readonly repository: string;
      readonly tag: string;
      readonly from: string;
      readonly to: string;
    };

/** Records refusals and changes, on a separate stream. */
export interface Audit {
  /** Records an event. Never throws and never waits. */
  record(event: AuditEvent): void;
  /** Reopens the file after a log rotation; does nothing on standard output. */
  reopen(): void;
  /** Writes what is buffered and closes, within a bounded time. */
  close(): Promise<void>;
}

/** Discards every event. */
export const NO_AUDIT: Audit = {
  record: () => {},
  reopen: () => {},
  close: () => Promise.resolve(),
};

/** The target of the lines. */
export interface AuditSink {
  /** @param line with its newline */
  write(line: string): void;
  reopen(): void;
  close(): Promise<void>;
}

/**
 * Writes one JSON line a record: `{"time": "2026-01-31T12:00:00.000Z", "seq": 1, "event": "denied", …}`.
 * `seq` counts from 1 at every start, so that missing lines are noticed.
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
 * @param file absolute; appended to, and created readable by its owner only if it is missing; `-`:
 *   standard output
 * @param onFault called when records could not be written
 * @param standard the descriptor that `-` stands for: commands print their output on 1
 * @throws the system's error if the file can't be opened
 */
export async function openAudit(
  file: string,
  onFault: (error: unknown) => void,
  standard: 1 | 2 = 1,
): Promise<Audit> {
  const isFile = file !== "-";
  // The stream below reports a fault only when the process ends.
  const probe = () => closeSync(openSync(file, "a", OWNER_ONLY));
  if (isFile) probe();
  const stream = pino.destination({
    dest: isFile ? file : standard,
    append: true,
    mode: OWNER_ONLY,
    // Requests never wait for a disk or a pipe.
    sync: false,
    // Every record is written immediately; with 0 a flush would not wait.
    minLength: 1,
    maxLength: MAX_BUFFERED_BYTES,
  });
  if (isFile) await once(stream, "ready");
  stream.on("error", onFault);
  stream.on("drop", () => {
    onFault(new Error("dropped audit records that cannot be written"));
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
      // The log uses standard output too; but the exit would wait for what is left in this stream.
      if (isFile || !isOut) stream.destroy();
    },
  });
}

/** Clips texts from clients and upstreams. */
function bounded(_key: string, value: unknown): unknown {
  return typeof value === "string" ? clip(value) : value;
}
