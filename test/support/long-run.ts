import assert from "node:assert/strict";
import { readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { DatabaseSync } from "node:sqlite";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import type { ImageSummary } from "../../src/images/images.ts";
import type { AfterTest } from "./after-test.ts";
import {
  COLLECTING,
  collectIn,
  openDescriptors,
  type QuietPoint,
  residentBytes,
} from "./baseline.ts";
import { ChildMirror } from "./child-mirror.ts";
import { Crowd } from "./crowd.ts";
import { Storm } from "./storm.ts";
import { tempDir } from "./temp-dir.ts";
import { Tmpfs } from "./tmpfs.ts";

export interface LongRunOptions {
  readonly random: () => number;
  /** Maximum real time for one simulated hour, without its quiet point. */
  readonly hourMs: number;
  /** Maximum number of client actions in one simulated hour. */
  readonly actsAnHour: number;
  /** Leaks of `test/support/leaking.ts` to enable, to prove that a leak is detected. */
  readonly leaks?: string;
}

const MIB = 1024 * 1024;
const HOUR_MS = 60 * 60 * 1000;
const MAX_SIZE_MIB = 24;
const DISK_MIB = 96;
const CLIENTS = 10;
const ENDPOINTS = 3;
/** Maximum time for which work continues without requests: time-outs, resumptions, unread fills. */
const SETTLE_MS = 60_000;
/** Log lines of a rejected configuration; every other error is a fault. */
const EXPECTED_ERRORS = new Set([
  "rejected the changed configuration; the previous one stays in effect",
]);
/** The variant of the configuration that a start reads; its log contains the addresses. */
const START = 0;
const FORBIDDEN = /unhandledRejection|uncaughtException|Warning|MaxListeners/;

/**
 * A mirror in its own process, a registry with every fault, and clients of all kinds, for simulated
 * hours. Each hour ends with a quiet point without requests. Time is compressed by use: a tag is fresh
 * for one second, and suspended partials age by one hour for each hour.
 */
export class LongRun {
  /** Faults found outside of the quiet points. */
  readonly faults: string[] = [];
  readonly points: QuietPoint[] = [];
  readonly storm: Storm;
  readonly crowd: Crowd;
  readonly #options: LongRunOptions;
  readonly #mirror: ChildMirror;
  readonly #dir: string;
  readonly #root: string;
  readonly #disk: Tmpfs | undefined;
  #reloads = 0;

  private constructor(
    options: LongRunOptions,
    parts: {
      readonly storm: Storm;
      readonly mirror: ChildMirror;
      readonly dir: string;
      readonly root: string;
      readonly disk: Tmpfs | undefined;
    },
  ) {
    this.#options = options;
    this.storm = parts.storm;
    this.#mirror = parts.mirror;
    this.#dir = parts.dir;
    this.#root = parts.root;
    this.#disk = parts.disk;
    this.crowd = new Crowd(parts.mirror, parts.storm, options.random);
  }

  /** Starts the registry and the mirror; as root, the storage is on a small tmpfs of its own. */
  static async start(
    test: AfterTest,
    options: LongRunOptions,
  ): Promise<LongRun> {
    const dir = await tempDir(test);
    const disk =
      process.getuid?.() === 0
        ? await Tmpfs.mount(test, `size=${DISK_MIB}m`)
        : undefined;
    const root = join(disk?.path ?? dir, "data");
    const storm = await Storm.start(test, ENDPOINTS, options.random);
    const leaking = `--import=${join(import.meta.dirname, "leaking.ts")}`;
    const mirror = await ChildMirror.start(test, {
      dir,
      config: configOf(root, storm.origins, START),
      nodeArgs:
        options.leaks === undefined ? [COLLECTING] : [COLLECTING, leaking],
      // Same value as in `npm start` and in the container.
      env: { MALLOC_ARENA_MAX: "1", LEAK_IN_TEST: options.leaks },
    });
    return new LongRun(options, { storm, mirror, dir, root, disk });
  }

  /** Runs one simulated hour with faults and clients, and then its quiet point. */
  async hour(): Promise<void> {
    const { hourMs, actsAnHour } = this.#options;
    const endMs = performance.now() + hourMs;
    this.storm.isOn = true;
    let left = actsAnHour;
    const client = async (): Promise<void> => {
      while (left > 0 && performance.now() < endMs) {
        left -= 1;
        await this.crowd.act();
      }
    };
    const turns = Promise.all(Array.from({ length: CLIENTS }, client));
    await Promise.all([turns, this.#befall(endMs)]);
    this.points.push(await this.#quiet());
  }

  /**
   * Ends the day: ages the suspended partials by a day, takes a last quiet point and stops the mirror.
   *
   * @returns images that the operator API listed as complete
   */
  async end(): Promise<readonly ImageSummary[]> {
    await this.#age(24 * HOUR_MS);
    this.points.push(await this.#quiet());
    const complete = (await this.#images()).filter((image) => image.complete);
    const { code } = await this.#mirror.terminate();
    this.#readLog();
    if (code !== 0) this.faults.push(`ended with ${code}`);
    return complete;
  }

  /** Starts the mirror again with `offline: true` and pulls the images. */
  async pullOffline(
    test: AfterTest,
    images: readonly ImageSummary[],
  ): Promise<void> {
    const mirror = await ChildMirror.start(test, {
      dir: this.#dir,
      config: {
        ...configOf(this.#root, this.storm.origins, START),
        offline: true,
      },
    });
    const crowd = new Crowd(mirror, this.storm, this.#options.random);
    for (const image of images) {
      const amiss = await crowd.pullOffline(image);
      if (amiss !== undefined) this.faults.push(`offline: ${amiss}`);
    }
    this.faults.push(...crowd.faults);
    await mirror.terminate();
  }

  get root(): string {
    return this.#root;
  }

  // --- faults besides those of the registry ------------------------------------------------------

  /** During an hour: moves tags, stops endpoints, fills the disk and changes the configuration. */
  async #befall(endMs: number): Promise<void> {
    const steps = [
      () => this.storm.lose(),
      () => this.#reload(),
      () => this.#fillDisk(),
      () => this.#breakConfiguration(),
      () => this.#freeDisk(),
      () => this.storm.lose(),
      () => this.#reload(),
    ];
    const pauseMs = (endMs - performance.now()) / (steps.length + 1);
    for (const step of steps) {
      this.storm.move(this.storm.pick(this.storm.tags));
      this.storm.move(this.storm.pick(this.storm.tags));
      await delay(Math.max(0, Math.min(pauseMs, endMs - performance.now())));
      await step();
    }
  }

  get #filler(): string | undefined {
    return this.#disk && join(this.#disk.path, "filler");
  }

  async #fillDisk(): Promise<void> {
    if (this.#filler === undefined) return;
    await writeFile(this.#filler, Buffer.alloc(DISK_MIB * MIB)).catch(
      () => undefined,
    );
  }

  async #freeDisk(): Promise<void> {
    if (this.#filler !== undefined) await rm(this.#filler, { force: true });
  }

  /** Reloads with other limits, which creates new upstream clients with closed breakers. */
  async #reload(): Promise<void> {
    this.#reloads += 1;
    await this.#configure(
      JSON.stringify(
        configOf(this.#root, this.storm.origins, 1 + (this.#reloads % 3)),
      ),
    );
  }

  async #breakConfiguration(): Promise<void> {
    await this.#configure('{"upstreams": {"docker.io": {"endpoint": 1}}}');
  }

  async #configure(text: string): Promise<void> {
    await writeFile(join(this.#dir, "entrepot.yaml"), text);
    this.#mirror.child.signal("SIGHUP");
  }

  // --- the quiet point ---------------------------------------------------------------------------

  async #quiet(): Promise<QuietPoint> {
    await this.#freeDisk();
    await this.storm.calm();
    await this.#reload();
    const settled = await this.#settle();
    // Trims suspended downloads and evicts down to the limits.
    const evicted = await this.crowd.operate("POST", "/api/v1/evict", {});
    assert.equal(evicted.status, 200, evicted.body.toString());
    await this.#age(HOUR_MS);
    const storedBytes = await this.#metric("entrepot_storage_bytes");
    if (storedBytes > MAX_SIZE_MIB * MIB) {
      this.faults.push(`${storedBytes} bytes are stored at a quiet point`);
    }
    const scrubbed = await this.crowd.operate("POST", "/api/v1/scrub");
    const { findings } = JSON.parse(scrubbed.body.toString()) as {
      readonly findings?: readonly unknown[];
    };
    if (findings?.length !== 0) {
      this.faults.push(`scrub: ${scrubbed.body.toString().slice(0, 1_000)}`);
    }
    this.#readLog();
    const liveBytes = await this.#collect();
    return {
      ...settled,
      liveBytes,
      rssBytes: residentBytes(this.#pid),
      partials: (await this.#partials()).length,
      intents: this.#intents(),
    };
  }

  /** Waits until no work is running; the point reports what does not end in time. */
  async #settle(): Promise<ReturnType<typeof openDescriptors>> {
    const endMs = performance.now() + SETTLE_MS;
    for (;;) {
      this.storm.dropConnections();
      const fills = await this.#metric("entrepot_fills_in_progress");
      await delay(50);
      const open = openDescriptors(this.#pid, this.#root);
      const isStill = fills === 0 && open.storageFiles === 0;
      const isBack =
        this.points[0] === undefined || open.sockets <= this.points[0].sockets;
      if ((isStill && isBack) || performance.now() > endMs) return open;
      await delay(100);
    }
  }

  async #collect(): Promise<number> {
    const liveBytes = await collectIn(this.#mirror);
    this.#readLog();
    return liveBytes;
  }

  async #partials(): Promise<readonly string[]> {
    const names = await readdir(diskLayout(this.#root).partialFolder);
    return names.filter((name) => name !== "boot-id");
  }

  /** Sets the modification times of the partial files back. */
  async #age(byMs: number): Promise<void> {
    const { partialFolder } = diskLayout(this.#root);
    for (const name of await this.#partials()) {
      const path = join(partialFolder, name);
      const left = (await stat(path)).mtimeMs - byMs;
      await utimes(path, left / 1000, left / 1000);
    }
  }

  #intents(): number {
    using index = new DatabaseSync(diskLayout(this.#root).indexFile, {
      readOnly: true,
      timeout: 5_000,
    });
    return Number(index.prepare("SELECT count(*) n FROM intents").get()?.["n"]);
  }

  async #images(): Promise<readonly ImageSummary[]> {
    const answer = await this.crowd.operate("GET", "/api/v1/images?n=1000");
    return (JSON.parse(answer.body.toString()) as { images: ImageSummary[] })
      .images;
  }

  /** Returns the sum of a metric over its labels. */
  async #metric(name: string): Promise<number> {
    const { body } = await this.crowd.operate("GET", "/metrics");
    let sum = 0;
    for (const line of body.toString().split("\n")) {
      if (line.startsWith(name)) sum += Number(line.split(" ").at(-1));
    }
    return sum;
  }

  get #pid(): number {
    const { pid } = this.#mirror.child;
    assert(pid !== undefined);
    return pid;
  }

  /** Checks and discards the output so far; that of a whole day would take too much memory. */
  #readLog(): void {
    for (const { stream, text } of this.#mirror.child.lines.splice(0)) {
      const record = stream === "stdout" ? parseRecord(text) : undefined;
      const isFault =
        record === undefined ||
        FORBIDDEN.test(text) ||
        ((record.level === "error" || record.level === "fatal") &&
          !EXPECTED_ERRORS.has(record.msg ?? ""));
      if (isFault) this.faults.push(`${stream}: ${text.slice(0, 2_000)}`);
    }
  }
}

interface LogRecord {
  readonly level?: string;
  readonly msg?: string;
}

function parseRecord(line: string): LogRecord | undefined {
  try {
    return JSON.parse(line) as LogRecord;
  } catch {
    return undefined;
  }
}

function configOf(
  root: string,
  endpoints: readonly string[],
  variant: number,
): Record<string, unknown> {
  return {
    listen: "127.0.0.1:0",
    operator: { listen: "127.0.0.1:0" },
    storage: { root },
    eviction: {
      maxSize: `${MAX_SIZE_MIB - variant}MiB`,
      minFree: "5%",
      maxIdle: "1h",
    },
    upstreams: {
      "docker.io": {
        default: true,
        endpoints,
        connectTimeout: "1s",
        headersTimeout: "1s",
        idleTimeout: "1s",
        concurrency: 16 + variant,
        freshness: { tagTtl: "1s", notFoundTtl: "1s" },
      },
    },
    scrub: { background: "100%" },
    log: { level: variant === START ? "info" : "warn" },
  };
}
