import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const CHILD = fileURLToPath(new URL("./kill-child.ts", import.meta.url));

/** Which of the child's threads is killed at its calls. */
export type Thread = "main" | "pool";

/** Every call that changes a file, a folder or what is durable. */
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
  "unlink",
  "fchmod",
  "chmod",
] as const;

export interface KillPoint {
  readonly thread: Thread;
  readonly call: (typeof CHANGING_CALLS)[number];
  /** 1 is the first call of this kind. */
  readonly nth: number;
}

/** How a run that something was to befall has ended. */
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

/** How often each thread makes each call in a run to the end. */
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

/** Empty for a thread that has ended since it was listed. */
function nameOf(thread: string): string {
  try {
    return readFileSync(`${thread}/comm`, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return "";
    throw error;
  }
}

/** Resolves when strace says that it is attached; later lines are the calls. */
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
