import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { Counter } from "./barrier.ts";

export interface ChildOptions {
  readonly command: string;
  readonly args?: readonly string[];
  /** Merged over the environment of the tests; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Whether the command only starts the program (strace): signals and memory then concern its child. */
  readonly isWrapper?: boolean;
}

/** Exit code of a process, or the signal that ended it. */
export interface ChildExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface OutputLine {
  readonly stream: "stdout" | "stderr";
  readonly text: string;
}

const MAX_LINES = 20_000;

/** A process started by a test. Its output is kept, and it is killed with the test. */
export class Child {
  readonly name: string;
  /** Resolves when the process has ended and its output is read. */
  readonly exited: Promise<ChildExit>;
  readonly lines: OutputLine[] = [];
  readonly #isWrapper: boolean;
  readonly #process: ChildProcess;
  readonly #counter = new Counter();
  #exit: ChildExit | undefined;

  constructor(test: AfterTest, options: ChildOptions) {
    this.name = basename(options.command);
    this.#isWrapper = options.isWrapper ?? false;
    this.#process = spawn(options.command, options.args ?? [], {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    for (const stream of ["stdout", "stderr"] as const) {
      const input = this.#process[stream];
      if (input === null) continue;
      createInterface({ input }).on("line", (text) => {
        if (this.lines.length < MAX_LINES) this.lines.push({ stream, text });
        this.#counter.notify();
      });
    }
    const { promise, resolve } = Promise.withResolvers<ChildExit>();
    this.exited = promise;
    const end = (exit: ChildExit): void => {
      this.#exit ??= exit;
      this.#counter.notify();
      resolve(this.#exit);
    };
    this.#process.on("error", (error) => {
      this.lines.push({ stream: "stderr", text: error.message });
      end({ code: 127, signal: null });
    });
    this.#process.on("close", (code, signal) => {
      end({ code, signal });
    });
    releaseAfter(test, () => this.kill());
  }

  /** Undefined if it could not be started. */
  get pid(): number | undefined {
    return this.#process.pid;
  }

  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  /** Sends SIGKILL to its descendants first; resolves when it has ended. */
  async kill(): Promise<ChildExit> {
    if (this.isRunning) {
      for (const pid of [...this.#descendants()].toReversed()) {
        killIfRunning(pid);
      }
      this.#process.kill("SIGKILL");
    }
    return this.exited;
  }

  /** Sends a signal to the program itself, not to its wrapper; does not wait. */
  signal(name: NodeJS.Signals): void {
    process.kill(this.#innermost(), name);
  }

  /** Sends SIGTERM; after the time-out it sends SIGKILL and throws. */
  async terminate(timeoutMs = 35_000): Promise<ChildExit> {
    if (this.isRunning) this.signal("SIGTERM");
    const timer = setTimeout(() => {
      void this.kill();
    }, timeoutMs);
    const exit = await this.exited;
    clearTimeout(timer);
    if (exit.signal === "SIGKILL") {
      throw new Error(`${this.name} outlived SIGTERM by ${timeoutMs} ms`);
    }
    return exit;
  }

  /** Waits for the first line, past or future, for which `find` returns a value. */
  async line<Found>(
    find: (text: string) => Found | undefined,
    timeoutMs = 20_000,
  ): Promise<Found> {
    let found: Found | undefined;
    let seen = 0;
    await this.#counter.until(
      () => {
        for (; found === undefined && seen < this.lines.length; seen += 1) {
          found = find(this.lines[seen]?.text ?? "");
        }
        return found !== undefined || !this.isRunning;
      },
      () => `${this.name} did not print the line:\n${this.output()}`,
      timeoutMs,
    );
    if (found === undefined) {
      const { code, signal: by } = this.#exit ?? {};
      throw new Error(
        `${this.name} ended with ${code ?? by} before:\n${this.output()}`,
      );
    }
    return found;
  }

  /** Returns the last lines, for a message. */
  output(lineCount = 60): string {
    return this.lines
      .slice(-lineCount)
      .map((line) => line.text)
      .join("\n");
  }

  /** Returns the resident memory of the program itself. */
  rssBytes(): number {
    return this.#status("VmRSS");
  }

  /** Returns the peak of the resident memory. */
  peakRssBytes(): number {
    return this.#status("VmHWM");
  }

  #status(field: string): number {
    const text = readFileSync(`/proc/${this.#innermost()}/status`, "utf8");
    const kibibytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text);
    if (kibibytes === null) throw new Error(`got no ${field} from /proc`);
    return Number(kibibytes[1]) * 1024;
  }

  #innermost(): number {
    const pid =
      (this.#isWrapper ? [...this.#descendants()].at(-1) : undefined) ??
      this.pid;
    if (pid === undefined) throw new Error(`${this.name} was not started`);
    return pid;
  }

  /** Yields the first child, its first child, and so on. */
  *#descendants(): Generator<number> {
    for (let pid = this.pid; pid !== undefined;) {
      pid = firstChildOf(pid);
      if (pid !== undefined) yield pid;
    }
  }
}

function firstChildOf(pid: number): number | undefined {
  try {
    const path = `/proc/${pid}/task/${pid}/children`;
    const [first] = readFileSync(path, "utf8").trim().split(" ");
    return first === undefined || first === "" ? undefined : Number(first);
  } catch {
    return undefined;
  }
}

function killIfRunning(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has already ended.
  }
}
