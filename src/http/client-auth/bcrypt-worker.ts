import { setPriority } from "node:os";
import { parentPort } from "node:worker_threads";
import { compareSync } from "bcryptjs";

/*
 * The worker thread that compares passwords with bcrypt hashes. One comparison takes a tenth of a
 * second, which would stop every download on the main thread.
 */

/** A thread gets one request at a time. */
export interface CompareRequest {
  readonly password: string;
  readonly hash: string;
}

export interface CompareReply {
  readonly isSame: boolean;
}

if (parentPort === null)
  throw new Error("got the main thread; expected to be started as a worker");
const port = parentPort;

if (process.platform === "linux") {
  try {
    // On Linux, 0 is this thread and not the process: responses have priority over log-ins.
    setPriority(0, 10);
  } catch {
    // A sandbox may forbid it; the thread works without it.
  }
}

port.on("message", ({ password, hash }: CompareRequest) => {
  const reply: CompareReply = { isSame: compareSync(password, hash) };
  port.postMessage(reply);
});
