import { StorageRootError } from "../storage/storage-root-errors.ts";
import { homedir } from "node:os";
import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { type App, buildApp } from "../app/app.ts";
import { formatFault } from "../config/fault.ts";
import { loadConfig } from "../config/load.ts";
import { ListenError } from "../http/server/listen-error.ts";
import { NameConflictError } from "../app/registry-names.ts";
import { watchConfig } from "../app/reload.ts";
import { type BoundAddresses, startLines } from "./start-lines.ts";
import { releaseStartupMemory } from "./startup-memory.ts";
import { messageOf } from "../telemetry/error-record.ts";

/** By default Docker kills a process after 10 s, Kubernetes after 30 s. */
const DRAIN_MS = 30_000;
/** The time for an interrupted start to close the storage properly. */
const STOP_START_MS = 2_000;
/** The longest wait for the log of a start, so that the last lines on a terminal follow it. */
const SETTLE_MS = 1_000;

export interface ServeOptions {
  readonly configFile: string | undefined;
  readonly offline: boolean | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  readonly stderr: Writable & { readonly isTTY?: boolean };
}

/**
 * Runs the mirror until SIGTERM or SIGINT.
 *
 * @returns the exit code: 0 after a drain, 1 if the cache cannot be opened, 2 for an invalid
 *   configuration, including a storage root or an address that cannot be used
 */
export async function runServe(options: ServeOptions): Promise<number> {
  const { env, cwd, stderr } = options;
  const load = () =>
    loadConfig({
      configFile: options.configFile,
      env,
      cwd,
      home: homedir(),
      overrides: { offline: options.offline },
    });
  const loaded = await load();
  if (!loaded.ok) {
    for (const fault of loaded.faults) stderr.write(`${formatFault(fault)}\n`);
    return 2;
  }
  const { config, warnings } = loaded;
  const fail = (error: unknown): number => {
    stderr.write(`entrepot: ${messageOf(error)}\n`);
    const isUsage =
      error instanceof StorageRootError ||
      error instanceof ListenError ||
      error instanceof NameConflictError;
    return isUsage ? 2 : 1;
  };
  const signals = watchSignals();
  let app;
  try {
    app = await unlessStopped(buildApp(config), signals.stopped);
  } catch (error) {
    return fail(error);
  }
  if (app === undefined) return 0;
  const { log } = app;
  for (const warning of warnings) {
    log.warn({ fault: formatFault(warning) }, "the configuration is risky");
  }
  let bound: BoundAddresses;
  try {
    bound = await app.listen();
  } catch (error) {
    await app.close();
    // After the log, since operators read the last line.
    await app.endLog();
    return fail(error);
  }
  const { storage, offline } = config;
  log.info(
    { ...bound, storage: storage.root, offline },
    "the mirror is listening",
  );
  const reloading = await watchConfig({
    loaded,
    load,
    apply: (changed) => app.reload(changed),
    log,
    audit: app.audit,
  });
  signals.onHangUp(() => void reloading.reload("signal"));
  releaseStartupMemory();
  if (stderr.isTTY === true) {
    await Promise.race([within(SETTLE_MS, app.settled()), signals.stopped]);
    stderr.write(`${startLines(config, bound).join("\n")}\n`);
  }
  const signal = await signals.stopped;
  reloading.close();
  await drain(app, signal);
  return 0;
}

/**
 * Handles the process's signals from now on: process 1 of a container has no default handlers, so
 * that an unhandled signal would be lost.
 */
function watchSignals() {
  let reload: (() => void) | undefined;
  process.on("SIGHUP", () => reload?.());
  const stop = Promise.withResolvers<NodeJS.Signals>();
  process.once("SIGTERM", stop.resolve);
  process.once("SIGINT", stop.resolve);
  return {
    /** Resolves with the first signal that stops the process. */
    stopped: stop.promise,
    onHangUp(handler: () => void): void {
      reload = handler;
    },
  };
}

/** Closes the app after its running requests. A second signal ends the wait; downloaded bytes are kept. */
async function drain(app: App, signal: NodeJS.Signals): Promise<void> {
  app.log.info({ signal }, "draining the running requests");
  const hurry = Promise.withResolvers<void>();
  process.once("SIGTERM", () => hurry.resolve());
  process.once("SIGINT", () => hurry.resolve());
  await Promise.race([app.close(DRAIN_MS), hurry.promise]);
  app.log.info("the mirror has stopped");
  await app.endLog();
}

/**
 * Returns the app, or undefined if a signal ended the start: a file system that does not answer can
 * block it forever.
 */
async function unlessStopped(
  starting: Promise<App>,
  stopped: Promise<NodeJS.Signals>,
): Promise<App | undefined> {
  const signal = await Promise.race([starting.then(() => undefined), stopped]);
  if (signal === undefined) return starting;
  let hasEnded = false;
  await within(
    STOP_START_MS,
    starting
      .then((app) => app.close())
      .catch(() => undefined)
      .finally(() => (hasEnded = true)),
  );
  if (!hasEnded) {
    // An exit waits for the thread that is blocked by the disk; the default action of the signal does not.
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  }
  return undefined;
}

/** Resolves when the work ends, or after a time. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const end = new AbortController();
  await Promise.race([
    work,
    delay(ms, undefined, { signal: end.signal }).catch(() => undefined),
  ]);
  end.abort();
}
