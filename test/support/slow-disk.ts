import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type AfterTest, releaseAfter } from "./after-test.ts";

/** System call numbers of fsync and fdatasync. */
const SYNCS: ReadonlySet<string> = new Set(
  process.arch === "arm64" ? ["82", "83"] : ["74", "75"],
);
/** Longer than any test: a call is held until strace exits. */
export const FOREVER_US = 600_000_000;

/** A disk whose syncs last as long as the test needs: strace holds a process's calls at their entry. */
export class SlowDisk {
  readonly #pid: number;
  readonly #release: () => Promise<void>;

  private constructor(pid: number, release: () => Promise<void>) {
    this.#pid = pid;
    this.#release = release;
  }

  /** Holds every later sync of the process, in all its threads. */
  static async hold(test: AfterTest, pid: number): Promise<SlowDisk> {
    const strace = spawn(
      "strace",
      [
        "-f",
        `-p${pid}`,
        "-etrace=fsync,fdatasync",
        `-einject=fsync,fdatasync:delay_enter=${FOREVER_US}`,
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    const ended = once(strace, "exit");
    const release = async (): Promise<void> => {
      strace.kill("SIGTERM");
      await ended;
    };
    releaseAfter(test, release);
    let said = "";
    while (!said.includes("attached")) {
      const [chunk] = (await once(strace.stderr, "data")) as [Buffer];
      said += chunk.toString();
    }
    strace.stderr.resume();
    return new SlowDisk(pid, release);
  }

  /** Names of the threads that are currently held in a sync. */
  heldThreads(): readonly string[] {
    const folder = `/proc/${this.#pid}/task`;
    return readdirSync(folder).flatMap((tid) => {
      try {
        const [call = ""] = read(`${folder}/${tid}/syscall`).split(" ");
        return SYNCS.has(call) ? [read(`${folder}/${tid}/comm`).trim()] : [];
      } catch {
        // The thread ended after it was listed.
        return [];
      }
    });
  }

  /** Resolves when the names of the held threads satisfy the predicate. */
  async untilHeld(
    isWanted: (threads: readonly string[]) => boolean,
  ): Promise<void> {
    while (!isWanted(this.heldThreads())) await delay(20);
  }

  /** Releases the held calls; later syncs are not held. */
  async release(): Promise<void> {
    await this.#release();
  }
}

function read(path: string): string {
  return readFileSync(path, "utf8");
}
