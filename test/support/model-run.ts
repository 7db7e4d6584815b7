import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { Evictor } from "../../src/retention/evictor.ts";
import {
  openLocalStorage,
  type LocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import { trackBlobStore } from "../../src/storage/tracked-blob-store.ts";
import type { Mirror } from "../../src/mirror/mirror.ts";
import type { Digest } from "../../src/oci/digest.ts";
import {
  parseRepositoryName,
  parseTag,
  referenceText,
  type RepositoryKey,
  type Tag,
} from "../../src/oci/reference.ts";
import { FakeClock } from "./fake-clock.ts";
import { buildImage, seededBlob, type TestImage } from "./image-builder.ts";
import { dropRoot, memoryRoot } from "./memory-root.ts";
import { mirrorOver, pull, quietLog } from "./pulling-mirror.ts";
import { ScriptedRegistry } from "./scripted-client.ts";

interface Place {
  readonly key: RepositoryKey;
  readonly tag: Tag;
}

/** State of a tag in the model. */
interface Known {
  /** Manifest that the upstream has under it. */
  upstream: TestImage;
  /** Manifest that was pulled last, and whether all its content is in the cache. */
  cached: { readonly image: TestImage; isWhole: boolean } | undefined;
  isPinned: boolean;
  /** All manifests that the upstream ever had under it. */
  readonly history: Set<Digest>;
}

const YEAR_MS = 365 * 24 * 60 * 60 * 1000;
const SIZES = [0, 1, 300, 4_096, 30_000, 70_000, 200_000] as const;
const PLACES: readonly Place[] = ["library/a", "library/b", "team/c"].flatMap(
  (name) => ["1", "2", "latest"].map((tag) => placeOf(name, tag)),
);

/**
 * Runs a seeded sequence of events against a storage, a mirror and a registry in this process, and
 * compares them with a model.
 */
export class ModelRun {
  /** Count of each step. */
  readonly steps = new Map<string, number>();
  readonly #random: () => number;
  readonly #clock = new FakeClock();
  readonly #registry = new ScriptedRegistry();
  readonly #known = new Map<Place, Known>();
  readonly #gone = new Set<Digest>();
  #images = 0;
  #root = memoryRoot();
  #cache: LocalStorage | undefined;
  #mirror: Mirror | undefined;
  #evictor: Evictor | undefined;

  constructor(random: () => number) {
    this.#random = random;
  }

  async start(): Promise<void> {
    await this.#openRoot();
    for (const place of PLACES) this.#push(place);
  }

  async end(): Promise<void> {
    await this.#closeRoot();
    dropRoot(this.#root);
  }

  async step(): Promise<void> {
    const place = this.#pick(PLACES);
    const [name, take] = this.#choose([
      [40, "pull", () => this.#pull(place)],
      [12, "push", async () => this.#push(place)],
      [4, "the upstream fails", async () => this.#setDown(true)],
      [6, "the upstream is back", async () => this.#setDown(false)],
      [5, "evict", () => this.#evict()],
      [3, "pin", () => this.#pin(place)],
      [2, "remove", () => this.#remove(place)],
      [3, "a file goes", async () => this.#spoil(place, undefined)],
      [2, "a bit flips, a scrub repairs", () => this.#flip(place)],
      [3, "the clock jumps", async () => this.#jump()],
      [2, "restart", () => this.#restart(() => undefined)],
      [2, "crash", () => this.#crash()],
      [1, "the index is lost", () => this.#loseIndex()],
    ]);
    this.steps.set(name, (this.steps.get(name) ?? 0) + 1);
    await take();
  }

  /** Compares the cache with the model while nothing is running. */
  async judge(): Promise<void> {
    const cache = this.#opened;
    await cache.upkeep.recovered();
    const { findings } = await cache.upkeep.scrub({ isRepair: false });
    assert.deepEqual(
      // The clock was set back since: the times are right by the earlier clock.
      findings.filter(
        ({ code, digest }) =>
          code !== "time-ahead" &&
          !(code === "file-missing" && this.#isGone(digest)),
      ),
      [],
    );
    const offline = mirrorOver(cache, this.#registry, {
      clock: this.#clock,
      isOffline: true,
    });
    for (const [{ key, tag }, { cached }] of this.#known) {
      if (cached?.isWhole !== true) continue;
      const digest = await pull(offline, key, tag);
      assert.equal(
        digest,
        cached.image.manifest.digest,
        `${key.repository}:${tag}`,
      );
    }
    await offline.close();
    await this.#judgePins();
  }

  /** A pin outlives the manifest and the index: it applies, or waits for the manifest. */
  async #judgePins(): Promise<void> {
    const { index } = this.#opened;
    const lost = (await index.listLostPins(PLACES.length + 1)).map(
      ({ key, reference }) => `${key.repository} ${referenceText(reference)}`,
    );
    for (const [{ key, tag }, { isPinned }] of this.#known) {
      const name = `${key.repository} ${tag}`;
      const root = await index.getRoot(key, { kind: "tag", tag });
      assert.equal(root?.isPinned ?? lost.includes(name), isPinned, name);
      assert(root === undefined || !lost.includes(name), name);
    }
  }

  // --- steps -----------------------------------------------------------------------------------

  async #pull(place: Place): Promise<void> {
    const { key, tag } = place;
    const known = this.#of(place);
    const mirror = this.#mirror;
    assert(mirror !== undefined);
    if (!this.#registry.isDown) {
      assert.equal(
        await pull(mirror, key, tag),
        known.upstream.manifest.digest,
        "an upstream that answers is believed",
      );
      // What is served from memory is looked for on the disk some seconds later: they pass here.
      await mirror.settleServed();
      assert.equal(
        await this.#settle(place, known.upstream),
        true,
        "all is in",
      );
      known.cached = { image: known.upstream, isWhole: true };
      return;
    }
    const wanted = known.cached;
    try {
      const digest = await pull(mirror, key, tag);
      // What was removed may be back after a crash and a lost index, but never what never was.
      if (wanted !== undefined) {
        assert.equal(digest, wanted.image.manifest.digest, "stale is what was");
      }
      assert(known.history.has(digest), "it was never that");
    } catch (error) {
      if (wanted?.isWhole === true || error instanceof assert.AssertionError) {
        throw error;
      }
    }
  }

  /** A body's last bytes are out before its row is in. @returns whether all of it is in */
  async #settle({ key }: Place, image: TestImage): Promise<boolean> {
    const { index } = this.#opened;
    for (const { digest } of [image.manifest, ...image.blobs]) {
      let isIn = false;
      for (let left = 200; !isIn && left > 0; left -= 1) {
        isIn = (await index.getLinkedBlob(key, digest)) !== undefined;
        if (!isIn) await delay(2);
      }
      if (!isIn) return false;
    }
    return true;
  }

  #push(place: Place): void {
    this.#images += 1;
    const image = buildImage({
      seed: `model/${this.#images}`,
      layers: Array.from({ length: 1 + Math.floor(this.#random() * 3) }, () => {
        // A few layers are shared by many images.
        const sizeBytes = this.#pick(SIZES);
        const variant = Math.floor(this.#random() * 3);
        return seededBlob(`model/layer/${variant}`, sizeBytes);
      }),
    });
    this.#registry.push(place.key, image, place.tag);
    const { digest } = image.manifest;
    const known = this.#known.get(place);
    if (known !== undefined) {
      known.upstream = image;
      known.history.add(digest);
    } else {
      this.#known.set(place, {
        upstream: image,
        cached: undefined,
        isPinned: false,
        history: new Set([digest]),
      });
    }
  }

  #setDown(isDown: boolean): void {
    this.#registry.isDown = isDown;
  }

  async #evict(): Promise<void> {
    const cache = this.#opened;
    const { blobBytes } = await cache.index.totals();
    await this.#evictor?.evict({
      toBytes: Math.floor(blobBytes * this.#random()),
      isDryRun: false,
    });
    for (const [place, known] of this.#known) {
      const row = await cache.index.getTag(place.key, place.tag);
      // Whole or absent: what is still there is judged at the next quiet moment.
      if (row !== undefined) continue;
      if (known.cached?.isWhole === true) {
        assert.equal(known.isPinned, false, "a pinned image was evicted");
      }
      known.cached = undefined;
    }
  }

  /** The journal stands in for the index once a start after a crash has brought it up to date. */
  async #loseIndex(): Promise<void> {
    await this.#opened.upkeep.recovered();
    await this.#restart((root) => loseIndex(root));
  }

  async #pin(place: Place): Promise<void> {
    const known = this.#of(place);
    const isPinned = this.#random() < 0.3;
    const isThere = await this.#opened.index.setPinned(
      place.key,
      { kind: "tag", tag: place.tag },
      isPinned,
    );
    known.isPinned = isThere && isPinned;
  }

  async #remove(place: Place): Promise<void> {
    await this.#evictor?.remove(place.key, { kind: "tag", tag: place.tag });
    const known = this.#of(place);
    known.cached = undefined;
    known.isPinned = false;
  }

  /** @returns the digest whose file is gone, or holds these bytes */
  #spoil(
    place: Place,
    change: ((bytes: Buffer) => void) | undefined,
  ): Digest | undefined {
    const image = this.#of(place).cached?.image;
    if (image === undefined) return undefined;
    const { digest } = this.#pick([image.manifest, ...image.blobs]);
    const path = diskLayout(this.#root).blobFile(digest);
    try {
      const bytes = readFileSync(path);
      if (change === undefined) rmSync(path);
      else {
        change(bytes);
        writeFileSync(path, bytes);
      }
    } catch {
      return undefined;
    }
    this.#gone.add(digest);
    for (const known of this.#known.values()) {
      const { cached } = known;
      if (cached === undefined) continue;
      const { manifest, blobs } = cached.image;
      if ([manifest, ...blobs].some((part) => part.digest === digest)) {
        cached.isWhole = false;
      }
    }
    return digest;
  }

  async #flip(place: Place): Promise<void> {
    const digest = this.#spoil(place, (bytes) => {
      bytes[0] = (bytes[0] ?? 0) ^ 1;
    });
    if (digest === undefined) return;
    await this.#opened.upkeep.recovered();
    const { findings } = await this.#opened.upkeep.scrub({ isRepair: true });
    // An empty blob has no bit to flip.
    assert(
      digest === EMPTY || findings.some((finding) => finding.digest === digest),
    );
  }

  #jump(): void {
    const byMs = Math.round((this.#random() - 0.5) * 20 * YEAR_MS);
    this.#clock.setWall(Math.max(YEAR_MS, this.#clock.nowMs() + byMs));
  }

  async #restart(between: (root: string) => void): Promise<void> {
    await this.#closeRoot();
    between(this.#root);
    await this.#openRoot();
    if (between.length > 0) await this.#opened.upkeep.recovered();
  }

  /** Simulates a kill: the files stay as they are now, without an orderly end. */
  async #crash(): Promise<void> {
    const left = this.#root;
    this.#root = memoryRoot(left);
    await this.#closeRoot();
    dropRoot(left);
    await this.#openRoot();
  }

  // --- parts -----------------------------------------------------------------------------------

  get #opened(): LocalStorage {
    assert(this.#cache !== undefined);
    return this.#cache;
  }

  async #openRoot(): Promise<void> {
    const cache = await openLocalStorage({
      root: this.#root,
      clock: this.#clock,
      log: quietLog,
    });
    this.#cache = cache;
    const blobs = trackBlobStore(cache.blobs);
    this.#mirror = mirrorOver({ blobs, index: cache.index }, this.#registry, {
      clock: this.#clock,
    });
    this.#evictor = new Evictor({
      index: cache.index,
      blobs,
      limits: {
        maxSize: { share: 1 },
        minFree: { bytes: 0 },
        maxIdleMs: Infinity,
        isKept: () => false,
      },
      readSpace: async () => undefined,
      clock: this.#clock,
      log: quietLog,
    });
  }

  async #closeRoot(): Promise<void> {
    await this.#mirror?.close();
    await this.#evictor?.stop();
    await this.#cache?.close();
  }

  #of(place: Place): Known {
    const known = this.#known.get(place);
    assert(known !== undefined);
    return known;
  }

  /** Whether the file was removed without the mirror's knowledge. */
  #isGone(digest: Digest | null): boolean {
    return digest !== null && this.#gone.has(digest);
  }

  #pick<T>(list: readonly T[]): T {
    const picked = list[Math.floor(this.#random() * list.length)];
    assert(picked !== undefined);
    return picked;
  }

  #choose(
    steps: readonly (readonly [number, string, () => Promise<unknown>])[],
  ): readonly [string, () => Promise<unknown>] {
    const sum = steps.reduce((total, [weight]) => total + weight, 0);
    let at = this.#random() * sum;
    for (const [weight, name, take] of steps) {
      at -= weight;
      if (at < 0) return [name, take];
    }
    throw new Error("no step");
  }
}

const EMPTY = buildImage({ seed: "empty", layers: [0] }).layers[0]?.digest;

function loseIndex(root: string): void {
  const { indexFile } = diskLayout(root);
  for (const suffix of ["", "-wal", "-shm"]) {
    rmSync(indexFile + suffix, { force: true });
  }
}

function placeOf(name: string, tagName: string): Place {
  const repository = parseRepositoryName(name);
  const tag = parseTag(tagName);
  assert(repository !== undefined && tag !== undefined);
  return { key: { upstream: "docker.io", repository }, tag };
}
