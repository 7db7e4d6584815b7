import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";
import { type FileIdentity, identifyFileNow } from "../root/file-identity.ts";

/*
 * The thread that does what makes SQLite wait for the disk: it syncs at checkpoints and reads the
 * whole file in checks. The connection that serves requests does neither, so a disk that takes
 * seconds for a sync stops no request.
 */

export type IndexWork =
  | { readonly ask: "checkpoint"; readonly reply: number }
  | {
      readonly ask: "find-damage";
      readonly reply: number;
      /** Without comparing every index with its table. */
      readonly isQuick: boolean;
    };

export interface IndexWorkReply {
  readonly reply: number;
  readonly damage: readonly string[];
  /** Present: it failed so. */
  readonly code?: string;
}

export interface IndexWorkerData {
  readonly path: string;
  /** Of the index that is open: another file at the path belongs to another process. */
  readonly identity: FileIdentity | undefined;
}

/** The thread may wait for others as long as it likes; it holds up nobody. */
const BUSY_TIMEOUT_MS = 10_000;
/** What is left of the log where it is begun again; it has grown to what one checkpoint was late. */
const LOG_LIMIT_BYTES = 1024 * 1024;
/** A log that writers keep from ever being begun again: 16 MiB. */
const LONG_LOG_FRAMES = 4_096;
/** While the log is cut no other connection can write: it waits no longer for a reader. */
const CUT_TIMEOUT_MS = 50;
const FAULTS_LISTED = 20;

if (parentPort === null) throw new Error("this file is started as a worker");
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
// The file is cut by the connection that begins the log again, which is this one.
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
    // Some damage ends the look for it.
    const isDamage =
      code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB";
    port.postMessage({
      reply,
      ...(isDamage ? { damage: [code] } : { damage: [], code }),
    } satisfies IndexWorkReply);
  }
});

function run(work: IndexWork): readonly string[] {
  switch (work.ask) {
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
 * A checkpoint of this kind keeps nobody from writing. Whoever writes first after it starts the
 * log anew and syncs its header: that is done here too, so that no request does it.
 */
function checkpoint(): void {
  const state = copyLog("PASSIVE");
  let isCopied = state.log > 0 && state.log === state.checkpointed;
  if (state.log > LONG_LOG_FRAMES && !isCopied) {
    // The second has little left to copy, and the third next to nothing.
    copyLog("PASSIVE");
    database.pragma(`busy_timeout = ${CUT_TIMEOUT_MS}`);
    isCopied = copyLog("TRUNCATE").busy === 0;
    database.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);
  }
  // Another value each time: SQLite writes no page that stays the same.
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
      `PRAGMA ${isQuick ? "quick_check" : "integrity_check"}(${FAULTS_LISTED})`,
    )
    .pluck()
    .all()
    .filter((line) => line !== "ok");
}
