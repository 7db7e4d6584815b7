import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";
import { type FileIdentity, identifyFileNow } from "./file-identity.ts";

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
  const [state] = database.pragma("wal_checkpoint(PASSIVE)") as [
    { busy: number; log: number; checkpointed: number },
  ];
  if (state.log > 0 && state.log === state.checkpointed) {
    database.exec("UPDATE state SET scrubbed_id = scrubbed_id");
  }
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
