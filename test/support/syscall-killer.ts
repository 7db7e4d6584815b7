import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const CHILD = fileURLToPath(new URL("./kill-child.ts", import.meta.url));

/** Thread of the child whose calls are traced: the main thread, or one of the thread pool. */
export type Thread = "main" | "pool";

/** System calls that change a file or a folder, or make a change durable. */
export const CHANGING_CALLS = [
  "mkdir",
  "openat",
  "write",
  "pwrite64",
  "pwritev",
  "ftruncate",
  "fsync",
  "fdatasync",
  "rename",
  "link",
  "unlink",
  "fchmod",
  "chmod",
] as const;

export interface KillPoint {
  readonly thread: Thread;
  readonly call: (typeof CHANGING_CALLS)[number];
  /** Number of the call among those of its kind; the first is 1. */
  readonly nth: number;
}

/** Outcome of a run: killed at the call, or completed. */
export type RunEnd = "killed" | "done";

/**
 * Runs the scenario in a process that is killed as it enters the n-th call of a kind in one of its
 * threads.
 */
export async function runKilledAt(
  scenario: string,
  root: string,
  { thread, call, nth }: KillPoint,
): Promise<RunEnd> {
  return runInjected(scenario, root, thread, [
    "-e",
    `trace=${call}`,
    "-e",
    `inject=${call}:signal=KILL:when=${nth}`,
  ]);
}

/** Counts the calls of each kind that a thread makes in a complete run. */
export async function countCalls(
  scenario: string,
  root: string,
  thread: Thread,
): Promise<ReadonlyMap<string, number>> {
  const lines: string[] = [];
  await runInjected(
    scenario,
    root,
    thread,
    ["-e", `trace=${CHANGING_CALLS.join(",")}`],
    (line) => lines.push(line),
  );
  const counts = new Map<string, number>();
  for (const line of lines) {
    const call = /^(\w+)\(/.exec(line)?.[1];
    if (call !== undefined) counts.set(call, (counts.get(call) ?? 0) + 1);
  }
  return counts;
}

async function runInjected(
  scenario: string,
  root: string,
  thread: Thread,
  expressions: readonly string[],
  onLine: (line: string) => void = () => undefined,
): Promise<RunEnd> {
  const child = spawn(process.execPath, [CHILD, scenario, root], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = once(child, "exit") as Promise<[number | null, string | null]>;
  await Promise.race([once(child.stdout, "data"), ended]);
  const strace = spawn(
    "strace",
    ["-p", String(threadOf(child, thread)), ...expressions],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const straceEnded = once(strace, "exit");
  await attached(strace, onLine);
  child.stdin.end("go\n");
  const [code, signal] = await ended;
  await straceEnded;
  if (signal === "SIGKILL") return "killed";
  if (code === 0) return "done";
  throw new Error(`${scenario} ended with ${code ?? signal}:\n${said}`);
}

function threadOf(child: ChildProcess, thread: Thread): number {
  const { pid } = child;
  if (pid === undefined) throw new Error("the child did not start");
  if (thread === "main") return pid;
  const folder = `/proc/${pid}/task`;
  const found = readdirSync(folder).find((tid) =>
    nameOf(`${folder}/${tid}`).startsWith("libuv-worker"),
  );
  if (found === undefined) throw new Error("the child has no pool");
  return Number(found);
}

/** Returns the name of a thread, empty if it ended after it was listed. */
function nameOf(thread: string): string {
  try {
    return readFileSync(`${thread}/comm`, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return "";
    throw error;
  }
}

/** Resolves when strace reports that it is attached; its later lines are calls. */
async function attached(
  strace: ChildProcess,
  onLine: (line: string) => void,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let rest = "";
  strace.stderr?.on("data", (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (/ attached/.test(line)) resolve();
      else onLine(line);
    }
  });
  strace.once("exit", () =>
    reject(new Error(`strace could not attach: ${rest}`)),
  );
  await promise;
}
