import { setTimeout as delay } from "node:timers/promises";
import type { Digest } from "../../../oci/digest.ts";
import {
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../../oci/reference.ts";
import { pathOf } from "../index/index-keys.ts";
import type { MetadataIndex } from "../../metadata-index.ts";
import type { JournalRoot } from "./roots-journal.ts";

/** A request waits no longer for what is on disk; then it passes through. */
const PATIENCE_MS = 10_000;
/** What was waited for in vain is remembered up to here; beyond it nothing is waited for. */
const MAX_IN_VAIN = 10_000;

/**
 * Lets requests wait for an index that is being rebuilt: what is on disk and not in the index yet
 * would be fetched again, or could not be had with the upstream away. The root that a request waits
 * for is restored next.
 */
export class RebuildWait {
  readonly #patienceMs: number;
  /** Roots that are not restored yet; undefined until the journal is read. */
  #pending: Map<string, JournalRoot> | undefined;
  #known = Promise.withResolvers<void>();
  #ended = Promise.withResolvers<void>();
  #isOn = false;
  readonly #wanted = new Map<string, PromiseWithResolvers<void>>();
  /** References and digests: one request waits once. */
  readonly #inVain = new Set<string>();

  constructor(patienceMs = PATIENCE_MS) {
    this.#patienceMs = patienceMs;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  /** The index has less than the journal from here on. */
  begin(): void {
    if (this.#isOn) return;
    this.#isOn = true;
    this.#known = Promise.withResolvers();
    this.#ended = Promise.withResolvers();
  }

  /** What will be restored, now that the journal is read. */
  expect(roots: readonly JournalRoot[]): void {
    this.#pending = new Map(
      roots
        .filter(({ digest }) => digest !== undefined)
        .map((root) => [nameOf(root.key, root.reference), root]),
    );
    this.#known.resolve();
  }

  /** A root that a request waits for. */
  takeWanted(): JournalRoot | undefined {
    const [name] = this.#wanted.keys();
    return name === undefined ? undefined : this.#pending?.get(name);
  }

  /** @returns false if it was restored out of its turn */
  isPending({ key, reference, digest }: JournalRoot): boolean {
    return (
      digest === undefined ||
      this.#pending === undefined ||
      this.#pending.has(nameOf(key, reference))
    );
  }

  noteRestored({ key, reference }: JournalRoot): void {
    const name = nameOf(key, reference);
    this.#pending?.delete(name);
    this.#wanted.get(name)?.resolve();
    this.#wanted.delete(name);
  }

  /** Every root is restored, or will not be. */
  end(): void {
    this.#isOn = false;
    this.#pending = undefined;
    this.#inVain.clear();
    for (const wanted of this.#wanted.values()) wanted.resolve();
    this.#wanted.clear();
    this.#known.resolve();
    this.#ended.resolve();
  }

  /**
   * Waits for a root of the journal.
   *
   * @returns whether the index is to be asked again
   */
  async forRoot(key: RepositoryKey, reference: Reference): Promise<boolean> {
    const name = nameOf(key, reference);
    return this.#within(name, async () => {
      await this.#restored(name);
    });
  }

  /** As {@link forRoot}, of what a root may name. @param isStored whether its file is there */
  async forBlob(
    key: RepositoryKey,
    digest: Digest,
    isStored: () => Promise<boolean>,
  ): Promise<boolean> {
    return this.#within(digest, async () => {
      if (!(await isStored())) return;
      const name = nameOf(key, { kind: "digest", digest });
      if (!(await this.#restored(name))) await this.#ended.promise;
    });
  }

  /** @returns false if nothing of that name is to be restored */
  async #restored(name: string): Promise<boolean> {
    await this.#known.promise;
    if (this.#pending?.has(name) !== true) return false;
    const wanted = this.#wanted.get(name) ?? Promise.withResolvers<void>();
    this.#wanted.set(name, wanted);
    await wanted.promise;
    return true;
  }

  async #within(name: string, wait: () => Promise<void>): Promise<boolean> {
    if (!this.#isOn || this.#inVain.has(name)) return false;
    if (this.#inVain.size >= MAX_IN_VAIN) return false;
    const end = new AbortController();
    const isIn = await Promise.race([
      wait().then(() => true),
      delay(this.#patienceMs, false, { signal: end.signal, ref: false }),
    ]);
    end.abort();
    if (isIn) return true;
    this.#inVain.add(name);
    const digest = this.#pending?.get(name)?.digest;
    if (digest !== undefined) this.#inVain.add(digest);
    return false;
  }
}

/**
 * An index whose answers wait for a rebuild that may still bring what it does not have. It is for
 * requests: the rebuild itself asks the index without it.
 */
export function waitForRebuild(
  index: MetadataIndex,
  rebuild: RebuildWait,
  isStored: (digest: Digest) => Promise<boolean>,
): MetadataIndex {
  const waiting: Pick<MetadataIndex, "getTag" | "getLinkedBlob"> = {
    async getTag(key, tag) {
      const row = await index.getTag(key, tag);
      if (row !== undefined || !rebuild.isOn) return row;
      const isChanged = await rebuild.forRoot(key, { kind: "tag", tag });
      return isChanged ? index.getTag(key, tag) : undefined;
    },
    async getLinkedBlob(key, digest) {
      const row = await index.getLinkedBlob(key, digest);
      if (row !== undefined || !rebuild.isOn) return row;
      const isChanged = await rebuild.forBlob(key, digest, () =>
        isStored(digest),
      );
      return isChanged ? index.getLinkedBlob(key, digest) : undefined;
    },
  };
  // All other methods are the index's own, at no cost.
  return Object.setPrototypeOf(waiting, index) as MetadataIndex;
}

function nameOf(key: RepositoryKey, reference: Reference): string {
  return `${pathOf(key)} ${referenceText(reference)}`;
}
