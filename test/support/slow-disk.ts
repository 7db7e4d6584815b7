import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type AfterTest, releaseAfter } from "./after-test.ts";

/** Numbers of fsync and fdatasync. */
const SYNCS: ReadonlySet<string> = new Set(
  process.arch === "arm64" ? ["82", "83"] : ["74", "75"],
);
/** Longer than any test: a call is held until strace goes. */
export const FOREVER_US = 600_000_000;

/** A disk whose syncs take as long as the test likes: strace holds those calls of a process at their entry. */
export class SlowDisk {
  readonly #pid: number;
  readonly #release: () => Promise<void>;

  private constructor(pid: number, release: () => Promise<void>) {
    this.#pid = pid;
    this.#release = release;
  }

  /** From here on no sync of the process ends, in whatever thread. */
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

  /** Names of the threads that are held in a sync now. */
  heldThreads(): readonly string[] {
    const folder = `/proc/${this.#pid}/task`;
    return readdirSync(folder).flatMap((tid) => {
      try {
        const [call = ""] = read(`${folder}/${tid}/syscall`).split(" ");
        return SYNCS.has(call) ? [read(`${folder}/${tid}/comm`).trim()] : [];
      } catch {
        // It ended meanwhile.
        return [];
      }
    });
  }

  /** Ends when the threads that are held are as wanted. */
  async untilHeld(
    isWanted: (threads: readonly string[]) => boolean,
  ): Promise<void> {
    while (!isWanted(this.heldThreads())) await delay(20);
  }

  /** What was held goes on. */
  async release(): Promise<void> {
    await this.#release();
  }
}

function read(path: string): string {
  return readFileSync(path, "utf8");
}
