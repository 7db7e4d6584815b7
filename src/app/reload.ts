import type { Config } from "../config/config.ts";
import { formatFault } from "../config/fault.ts";
import { type FileWatch, watchFiles } from "../config/files/file-watch.ts";
import type { LoadResult } from "../config/load.ts";
import type { Audit } from "../telemetry/audit.ts";
import type { Logger } from "../telemetry/logger.ts";
import { messageOf } from "../telemetry/error-record.ts";

/** Cause of a reload: SIGHUP, or a change of one of the configuration's files. */
export type ReloadSource = "signal" | "file";

/** Reads the configuration again on request and when its files change. */
export interface Reloading {
  /** Resolves when the new configuration is applied or rejected. Never rejects. */
  reload(source: ReloadSource): Promise<void>;
  close(): void;
}

export interface ReloadOptions {
  readonly loaded: LoadResult & { ok: true };
  readonly load: () => Promise<LoadResult>;
  /** @returns the top-level keys whose values changed. @throws Error if the configuration was rejected */
  readonly apply: (config: Config) => Promise<readonly string[]>;
  readonly log: Logger;
  readonly audit: Audit;
}

/**
 * Watches the configuration's files.
 *
 * The log and the audit report a faulty configuration; the previous one then applies unchanged.
 */
export async function watchConfig(options: ReloadOptions): Promise<Reloading> {
  const reloader = new Reloader(options);
  await reloader.watch();
  return reloader;
}

class Reloader implements Reloading {
  readonly #options: ReloadOptions;
  /** Values at the start of the keys that only a restart changes. */
  readonly #started: Readonly<Record<string, unknown>>;
  /** Files of the configuration that applies now. */
  #paths: readonly string[];
  #watchedPaths = "";
  #watch: FileWatch | undefined;
  /** One reload at a time. */
  #running = Promise.resolve();
  #isClosed = false;

  constructor(options: ReloadOptions) {
    this.#options = options;
    this.#started = readFixedKeys(options.loaded.config);
    this.#paths = pathsOf(options.loaded);
  }

  async watch(): Promise<void> {
    await this.#watchPaths(this.#paths);
  }

  reload(source: ReloadSource): Promise<void> {
    this.#running = this.#running.then(() => this.#reload(source));
    return this.#running;
  }

  close(): void {
    this.#isClosed = true;
    this.#watch?.close();
  }

  async #reload(source: ReloadSource): Promise<void> {
    if (this.#isClosed) return;
    const { apply, audit } = this.#options;
    try {
      if (source === "signal") audit.reopen();
      const loaded = await this.#load();
      if (!loaded.ok) {
        this.#reject(source, loaded.faults.map(formatFault));
        return;
      }
      const changed = await apply(loaded.config);
      this.#logApplied(source, loaded, changed);
    } catch (error) {
      const text = messageOf(error);
      this.#reject(source, [text]);
    }
  }

  /** Loads the configuration, after the watch of its files has started: no later change is missed. */
  async #load(): Promise<LoadResult> {
    const { load } = this.#options;
    const loaded = await load();
    // Files of a rejected configuration are watched too: a `chmod` of one may repair it.
    const paths = new Set([...this.#paths, ...pathsOf(loaded)]);
    return (await this.#watchPaths([...paths])) ? load() : loaded;
  }

  /** @returns whether the paths differ from those watched before */
  async #watchPaths(paths: readonly string[]): Promise<boolean> {
    if (paths.join("\n") === this.#watchedPaths) return false;
    this.#watchedPaths = paths.join("\n");
    this.#watch?.close();
    this.#watch = await watchFiles(paths, () => this.reload("file"));
    if (this.#isClosed) this.#watch.close();
    return true;
  }

  #reject(source: ReloadSource, faults: readonly string[]): void {
    const { log, audit } = this.#options;
    log.error(
      { source, faults },
      "rejected the changed configuration; the previous one stays in effect",
    );
    audit.record({ event: "reload-refused", source, faults });
  }

  #logApplied(
    source: ReloadSource,
    loaded: LoadResult & { ok: true },
    changed: readonly string[],
  ): void {
    const { log, audit } = this.#options;
    for (const warning of loaded.warnings) {
      log.warn(
        { fault: formatFault(warning) },
        "configuration accepted with a warning",
      );
    }
    const fixed = readFixedKeys(loaded.config);
    const keys = Object.keys({ ...this.#started, ...fixed }).filter(
      (key) =>
        JSON.stringify(this.#started[key]) !== JSON.stringify(fixed[key]),
    );
    if (keys.length > 0) {
      log.warn({ keys }, "changed keys take effect after a restart");
    }
    this.#paths = pathsOf(loaded);
    // The files of users and keys have watches of their own, which log their changes.
    if (source === "file" && changed.length === 0) return;
    log.info({ source, changed }, "applied the changed configuration");
    audit.record({ event: "reloaded", source, changed });
  }
}

function pathsOf({ sources }: LoadResult): readonly string[] {
  const { configFile, files } = sources;
  return configFile === undefined ? files : [configFile, ...files];
}

/** Returns the values that only a restart changes, by key. */
function readFixedKeys(config: Config): Record<string, unknown> {
  const { listen, operator, storage, tls } = config;
  return {
    listen,
    tls: tls !== undefined,
    "operator.listen": operator.listen,
    storage,
  };
}
