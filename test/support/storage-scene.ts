import assert from "node:assert/strict";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AfterTest } from "./after-test.ts";
import { ChildMirror, type ChildMirrorOptions } from "./child-mirror.ts";
import { buildImage, type TestImage } from "./image-builder.ts";
import { rawRequest } from "./raw-client.ts";
import { ScriptedUpstream } from "./scripted-upstream.ts";

/** The registries of a {@link StorageScene}. */
export const REGISTRIES = ["one.test", "two.test"] as const;
export type Registry = (typeof REGISTRIES)[number];

const POLL_MS = 50;

/** A mirror of two registries in its own process, with checks of its storage. */
export class StorageScene {
  readonly upstreams: Readonly<Record<Registry, ScriptedUpstream>>;
  readonly #options: ChildMirrorOptions;
  #mirror: ChildMirror | undefined;

  private constructor(
    upstreams: Readonly<Record<Registry, ScriptedUpstream>>,
    options: ChildMirrorOptions,
  ) {
    this.upstreams = upstreams;
    this.#options = options;
  }

  static async open(
    test: AfterTest,
    root: string,
    options: ChildMirrorOptions = {},
  ): Promise<StorageScene> {
    const [one, two] = await Promise.all([
      ScriptedUpstream.start(test),
      ScriptedUpstream.start(test),
    ]);
    const upstreams = { "one.test": one, "two.test": two };
    return new StorageScene(upstreams, {
      ...options,
      config: {
        storage: { root },
        eviction: { minFree: "0B" },
        upstreams: {
          "one.test": { endpoints: [one.origin], idleTimeout: "60s" },
          "two.test": { endpoints: [two.origin], idleTimeout: "60s" },
        },
        ...options.config,
      },
    });
  }

  async start(test: AfterTest): Promise<void> {
    this.#mirror = await ChildMirror.start(test, this.#options);
  }

  get mirror(): ChildMirror {
    assert(this.#mirror !== undefined, "the mirror was not started");
    return this.#mirror;
  }

  /** Adds an image of that name to both registries, with different bytes in each. */
  addImages(name: string, layers: readonly number[]): void {
    for (const registry of REGISTRIES) {
      const image = imageOf(registry, name, layers);
      this.upstreams[registry].content.addImage("app", image, name);
    }
  }

  /**
   * Pulls an image from both registries and asserts that every response is complete and correct.
   *
   * @returns number of requests that the registries received
   */
  async pull(name: string, layers: readonly number[]): Promise<number> {
    for (const registry of REGISTRIES)
      this.upstreams[registry].forgetRequests();
    for (const registry of REGISTRIES) {
      const image = imageOf(registry, name, layers);
      const wanted = [
        [`manifests/${name}`, image.manifest.digest],
        ...image.blobs.map(({ digest }) => [`blobs/${digest}`, digest]),
      ] as const;
      for (const [path, digest] of wanted) {
        const got = await rawRequest({
          port: this.mirror.port,
          path: `/v2/${registry}/app/${path}`,
          body: "hash",
        });
        assert.deepEqual(
          [got.status, got.end, got.sha256],
          [200, "complete", digest],
          `${registry}/app ${path}`,
        );
      }
    }
    return REGISTRIES.reduce(
      (sum, registry) => sum + this.upstreams[registry].count(),
      0,
    );
  }

  /** Returns the state of the storage in `/readyz`, which must return 200. */
  async storage(): Promise<string> {
    const response = await fetch(`${this.mirror.operatorOrigin}/readyz`);
    assert.equal(response.status, 200);
    const { storage } = (await response.json()) as { storage: string };
    return storage;
  }

  /** Waits until `/readyz` reports such a state of the storage. @returns milliseconds waited */
  async untilStorage(wanted: RegExp, timeoutMs = 30_000): Promise<number> {
    const startedAtMs = performance.now();
    for (;;) {
      const now = await this.storage();
      const tookMs = performance.now() - startedAtMs;
      if (wanted.test(now)) return Math.round(tookMs);
      assert.ok(tookMs < timeoutMs, `the storage is ${now} still`);
      await delay(POLL_MS);
    }
  }

  /** Waits until the log of the mirror contains such a message. @returns milliseconds waited */
  async untilLogged(wanted: RegExp, timeoutMs = 30_000): Promise<number> {
    const startedAtMs = performance.now();
    for (;;) {
      const tookMs = performance.now() - startedAtMs;
      const { logs } = this.mirror;
      if (logs.some(({ msg }) => wanted.test(String(msg)))) {
        return Math.round(tookMs);
      }
      assert.ok(tookMs < timeoutMs, `no line says ${wanted.source}`);
      await delay(POLL_MS);
    }
  }

  /** Value of the gauge `entrepot_storage_degraded`. */
  async degraded(): Promise<string | undefined> {
    return /^entrepot_storage_degraded (\d)$/m.exec(
      await this.mirror.metrics(),
    )?.[1];
  }

  /** Pulls the image again and again until a pull needs no request to the registries. */
  async untilStored(name: string, layers: readonly number[]): Promise<void> {
    for (let left = 200; (await this.pull(name, layers)) > 0; left -= 1) {
      assert.ok(left > 0, `${name} is not stored`);
      await delay(POLL_MS);
    }
  }
}

export function imageOf(
  registry: Registry,
  name: string,
  layers: readonly number[],
): TestImage {
  return buildImage({ seed: `${registry}/${name}`, layers });
}

/** Lists every entry below a folder with inode, size and time, so that a test detects any write. */
export async function listTree(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder, { recursive: true });
  const lines = await Promise.all(
    names.map(async (name) => {
      const { size, mtimeMs, ino } = await lstat(join(folder, name));
      return `${name} ${ino} ${size} ${mtimeMs}`;
    }),
  );
  return lines.toSorted();
}
