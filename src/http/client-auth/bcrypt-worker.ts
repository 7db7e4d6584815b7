import { setPriority } from "node:os";
import { parentPort } from "node:worker_threads";
import { compareSync } from "bcryptjs";

/*
 * The thread that compares passwords with their bcrypt hashes: a tenth of a second of computing
 * each, which would stop every download on the main thread.
 */

/** A thread has one at a time. */
export interface CompareRequest {
  readonly password: string;
  readonly hash: string;
}

export interface CompareReply {
  readonly isSame: boolean;
}

if (parentPort === null) throw new Error("this file is started as a worker");
const port = parentPort;

if (process.platform === "linux") {
  try {
    // There, 0 is this thread and not the process: answers come before guesses.
    setPriority(0, 10);
  } catch {
    // A sandbox may forbid it; it is a courtesy only.
  }
}

port.on("message", ({ password, hash }: CompareRequest) => {
  const reply: CompareReply = { isSame: compareSync(password, hash) };
  port.postMessage(reply);
});
