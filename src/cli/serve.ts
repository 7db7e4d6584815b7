import { homedir } from "node:os";
import type { Writable } from "node:stream";
import { buildApp } from "../app.ts";
import { formatFault } from "../config/fault.ts";
import { loadConfig } from "../config/load.ts";
import { watchConfig } from "../reload.ts";
import { releaseStartupMemory } from "./startup-memory.ts";

/** Docker and Kubernetes kill after 10 and 30 s unless told otherwise. */
const DRAIN_MS = 30_000;

export interface ServeOptions {
  readonly configFile: string | undefined;
  readonly offline: boolean | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  readonly stderr: Writable;
}

/**
 * Runs the mirror until SIGTERM or SIGINT.
 *
 * @returns the exit code: 0 after a drain, 1 where the cache can't be opened or an address is
 *   taken, 2 for a faulty configuration
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
    app = await buildApp(loaded.config);
  } catch (error) {
    stderr.write(`entrepot: ${messageOf(error)}\n`);
    return 1;
  }
  const { log } = app;
  for (const warning of loaded.warnings) {
    log.warn({ fault: formatFault(warning) }, "configuration");
  }
  try {
    log.info(
      {
        ...(await app.listen()),
        storage: loaded.config.storage.root,
        offline: loaded.config.offline,
      },
      "listening",
    );
  } catch (error) {
    await app.close();
    stderr.write(`entrepot: ${messageOf(error)}\n`);
    return 1;
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

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
