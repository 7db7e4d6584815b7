import { StorageRootError } from "../storage/storage-root-errors.ts";
import { homedir } from "node:os";
import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { type App, buildApp } from "../app/app.ts";
import { formatFault } from "../config/fault.ts";
import { loadConfig } from "../config/load.ts";
import { ListenError } from "../http/server/listen-error.ts";
import { watchConfig } from "../app/reload.ts";
import { type BoundAddresses, startLines } from "./start-lines.ts";
import { releaseStartupMemory } from "./startup-memory.ts";

/** Docker and Kubernetes kill after 10 and 30 s unless told otherwise. */
const DRAIN_MS = 30_000;
/** A start that was stopped has so long to leave the storage in order. */
const STOP_START_MS = 2_000;
/** On a terminal the last lines of a start come after those of the log, if these come soon. */
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
 * @returns the exit code: 0 after a drain, 1 where the cache can't be opened, 2 for a faulty
 *   configuration, a storage root or an address that can't be used included
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
  // Heard from here on: as process 1 of a container a signal that nobody hears is lost.
  const hangUp = { heard: () => {} };
  process.on("SIGHUP", () => hangUp.heard());
  const stop = Promise.withResolvers<NodeJS.Signals>();
  process.once("SIGTERM", stop.resolve);
  process.once("SIGINT", stop.resolve);
  let app;
  try {
    app = await unlessStopped(buildApp(loaded.config), stop.promise);
  } catch (error) {
    stderr.write(`entrepot: ${messageOf(error)}\n`);
    return error instanceof StorageRootError ? 2 : 1;
  }
  if (app === undefined) return 0;
  const { log } = app;
  let bound: BoundAddresses;
  for (const warning of loaded.warnings) {
    log.warn({ fault: formatFault(warning) }, "configuration");
  }
  try {
    bound = await app.listen();
    log.info(
      {
        ...bound,
        storage: loaded.config.storage.root,
        offline: loaded.config.offline,
      },
      "listening",
    );
  } catch (error) {
    await app.close();
    // The last line is the one that is read.
    await app.endLog();
    stderr.write(`entrepot: ${messageOf(error)}\n`);
    return error instanceof ListenError ? 2 : 1;
  }
  const reloading = await watchConfig({
    loaded,
    load,
    apply: (config) => app.reload(config),
    log,
    audit: app.audit,
  });
  hangUp.heard = () => void reloading.reload("signal");
  releaseStartupMemory();
  if (stderr.isTTY === true) {
    await Promise.race([within(SETTLE_MS, app.settled()), stop.promise]);
    stderr.write(`${startLines(loaded.config, bound).join("\n")}\n`);
  }
  const signal = await stop.promise;
  reloading.close();
  log.info({ signal }, "draining");
  // A second signal ends it at once: what was downloaded is kept all the same.
  const hurry = Promise.withResolvers<void>();
  process.once("SIGTERM", () => hurry.resolve());
  process.once("SIGINT", () => hurry.resolve());
  await Promise.race([app.close(DRAIN_MS), hurry.promise]);
  log.info("stopped");
  await app.endLog();
  return 0;
}

/**
 * The app, or undefined if a signal ended the start: a file system that does not answer can hold it
 * up without end.
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
    // An exit waits for the thread that waits for the disk; the signal's own end does not.
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  }
  return undefined;
}

/** Resolves with the work, or after a time without it. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const end = new AbortController();
  await Promise.race([
    work,
    delay(ms, undefined, { signal: end.signal }).catch(() => undefined),
  ]);
  end.abort();
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
