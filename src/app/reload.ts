import type { Config } from "../config/config.ts";
import { formatFault } from "../config/fault.ts";
import { type FileWatch, watchFiles } from "../config/files/file-watch.ts";
import type { LoadResult } from "../config/load.ts";
import type { Audit } from "../telemetry/audit.ts";
import type { Logger } from "../telemetry/logger.ts";

/** What asks for a reload. */
export type ReloadSource = "signal" | "file";

/** Reads the configuration again when told, and when its files change. */
export interface Reloading {
  /** Ends when the new configuration is in force, or was refused. Never throws. */
  reload(source: ReloadSource): Promise<void>;
  close(): void;
}

/**
 * Watches the configuration's files.
 *
 * A faulty configuration is told in the log and the audit, and the old one stays whole.
 */
export async function watchConfig(options: {
  readonly loaded: LoadResult & { ok: true };
  readonly load: () => Promise<LoadResult>;
  /** @returns the top-level keys that are another than before. @throws where nothing was taken over */
  readonly apply: (config: Config) => Promise<readonly string[]>;
  readonly log: Logger;
  readonly audit: Audit;
}): Promise<Reloading> {
  const { load, apply, log, audit } = options;
  const started = describeFixed(options.loaded.config);
  let running = Promise.resolve();
  let watch: FileWatch | undefined;
  let isClosed = false;
  let watched = "";

  let inForce = pathsOf(options.loaded);
  /** @returns whether they are others than before */
  const watchPaths = async (paths: readonly string[]): Promise<boolean> => {
    if (paths.join("\n") === watched) return false;
    watched = paths.join("\n");
    watch?.close();
    watch = await watchFiles(paths, () => reload("file"));
    if (isClosed) watch.close();
    return true;
  };
  const loadWatched = async (): Promise<LoadResult> => {
    const loaded = await load();
    // Those of a configuration that is refused too: a `chmod` of one may mend it.
    const paths = new Set([...inForce, ...pathsOf(loaded)]);
    // Read once it is known what they are like: what changes after that is seen.
    return (await watchPaths([...paths])) ? load() : loaded;
  };
  const refuse = (source: ReloadSource, faults: readonly string[]): void => {
    log.error(
      { source, faults },
      "the new configuration is refused and the old one stays",
    );
    audit.record({ event: "reload-refused", source, faults });
  };
  const reloadOnce = async (source: ReloadSource): Promise<void> => {
    if (isClosed) return;
    try {
      if (source === "signal") audit.reopen();
      const loaded = await loadWatched();
      if (!loaded.ok) {
        refuse(source, loaded.faults.map(formatFault));
        return;
      }
      const changed = await apply(loaded.config);
      for (const warning of loaded.warnings) {
        log.warn({ fault: formatFault(warning) }, "configuration");
      }
      const described = describeFixed(loaded.config);
      const waiting = Object.keys({ ...started, ...described }).filter(
        (key) =>
          JSON.stringify(started[key]) !== JSON.stringify(described[key]),
      );
      if (waiting.length > 0) {
        log.warn({ keys: waiting }, "a change that needs a restart");
      }
      inForce = pathsOf(loaded);
      // The files of users and keys have watches of their own: nothing else is told of them.
      if (source === "file" && changed.length === 0) return;
      log.info({ source, changed }, "the configuration was read again");
      audit.record({ event: "reloaded", source, changed });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      refuse(source, [text]);
    }
  };
  const reload = (source: ReloadSource): Promise<void> => {
    running = running.then(() => reloadOnce(source));
    return running;
  };

  await watchPaths(inForce);
  return {
    reload,
    close: () => {
      isClosed = true;
      watch?.close();
    },
  };
}

function pathsOf({ sources }: LoadResult): readonly string[] {
  const { configFile, files } = sources;
  return configFile === undefined ? files : [configFile, ...files];
}

/** What needs a restart to change, by its key. */
function describeFixed(config: Config): Record<string, unknown> {
  const { listen, operator, storage, tls } = config;
  return {
    listen,
    tls: tls !== undefined,
    "operator.listen": operator.listen,
    storage,
  };
}
