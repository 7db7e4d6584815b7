import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";
import { type FileIdentity, identifyFileNow } from "../root/file-identity.ts";

/*
 * The thread for work of SQLite that waits for the disk: checkpoints, which sync, and integrity
 * checks, which read the whole file. The connection that serves requests does neither, so a slow sync
 * delays no request.
 */

export type IndexWork =
  | { readonly kind: "checkpoint"; readonly reply: number }
  | {
      readonly kind: "find-damage";
      readonly reply: number;
      /** Whether to skip the comparison of each index with its table. */
      readonly isQuick: boolean;
    };

export interface IndexWorkReply {
  readonly reply: number;
  readonly damage: readonly string[];
  /** The error code; present if the work failed. */
  readonly code?: string;
}

export interface IndexWorkerData {
  readonly path: string;
  /** The identity of the open index; a different file at the path belongs to another process. */
  readonly identity: FileIdentity | undefined;
}

/** Waiting here delays no request. */
const BUSY_TIMEOUT_MS = 10_000;
/** The size to which the log is cut when it restarts. */
const LOG_LIMIT_BYTES = 1024 * 1024;
/** 16 MiB: above it the log is cut, because constant writes prevent its restart. */
const LONG_LOG_FRAMES = 4_096;
/** Bounds the wait for readers while the log is cut, because writers wait meanwhile. */
const CUT_TIMEOUT_MS = 50;
const MAX_FAULTS = 20;

if (parentPort === null)
  throw new Error("got a main thread; expected a worker thread");
const port = parentPort;
const { path, identity } = workerData as IndexWorkerData;
if (identifyFileNow(path) !== identity) {
  throw new Error("the index is not at its path");
}
const database = new Database(path, {
  fileMustExist: true,
  timeout: BUSY_TIMEOUT_MS,
});
database.pragma("synchronous = NORMAL");
database.pragma("wal_autocheckpoint = 0");
// This connection restarts the log, so its limit applies.
database.pragma(`journal_size_limit = ${LOG_LIMIT_BYTES}`);
database.pragma("cache_size = -1024");
database.pragma("cell_size_check = ON");

port.on("message", (work: IndexWork) => {
  const { reply } = work;
  try {
    port.postMessage({ reply, damage: run(work) } satisfies IndexWorkReply);
  } catch (error) {
    const code =
      error instanceof Error && "code" in error
        ? String(error.code)
        : "EUNKNOWN";
    // Some damage ends the check with an error.
    const isDamage =
      code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB";
    port.postMessage({
      reply,
      ...(isDamage ? { damage: [code] } : { damage: [], code }),
    } satisfies IndexWorkReply);
  }
});

function run(work: IndexWork): readonly string[] {
  switch (work.kind) {
    case "checkpoint":
      checkpoint();
      return [];
    case "find-damage":
      return findDamage(work.isQuick);
    default:
      return work satisfies never;
  }
}

/**
 * A passive checkpoint does not block writers. The first write after a complete one restarts the log
 * and syncs its header; that write is made here, so that no request waits for the sync.
 */
function checkpoint(): void {
  const state = copyLog("PASSIVE");
  let isCopied = state.log > 0 && state.log === state.checkpointed;
  if (state.log > LONG_LOG_FRAMES && !isCopied) {
    // Each further checkpoint has less to copy, so the last one blocks writers only briefly.
    copyLog("PASSIVE");
    database.pragma(`busy_timeout = ${CUT_TIMEOUT_MS}`);
    isCopied = copyLog("TRUNCATE").busy === 0;
    database.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);
  }
  // A different value each time, because SQLite does not write an unchanged page.
  if (isCopied) database.exec("UPDATE state SET checkpoints = checkpoints + 1");
}

function copyLog(mode: "PASSIVE" | "TRUNCATE"): {
  readonly busy: number;
  readonly log: number;
  readonly checkpointed: number;
} {
  const [state] = database.pragma(`wal_checkpoint(${mode})`) as [
    { busy: number; log: number; checkpointed: number },
  ];
  return state;
}

function findDamage(isQuick: boolean): readonly string[] {
  return database
    .prepare<[], string>(
      `PRAGMA ${isQuick ? "quick_check" : "integrity_check"}(${MAX_FAULTS})`,
    )
    .pluck()
    .all()
    .filter((line) => line !== "ok");
}
