import { setTimeout as delay } from "node:timers/promises";
import type { Digest } from "../../../oci/digest.ts";
import {
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../../oci/reference.ts";
import { pathOf } from "../index/index-keys.ts";
import type { MetadataIndex } from "../../metadata-index.ts";
import type { JournalRoot } from "./journal-lines.ts";

/** How long a request waits for stored content; then it goes to the upstream. */
const PATIENCE_MS = 10_000;
/** Bounds the names whose wait timed out; at the bound requests no longer wait. */
const MAX_TIMED_OUT = 10_000;

/**
 * Lets requests wait while the index is rebuilt. Otherwise stored content that is not in the index
 * yet would be fetched again, or fail if the upstream is not available. The root that a request waits
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
  /** References and digests whose wait timed out; later requests do not wait for them. */
  readonly #timedOut = new Set<string>();

  constructor(patienceMs = PATIENCE_MS) {
    this.#patienceMs = patienceMs;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  /** Starts the wait: the index has less than the journal. */
  begin(): void {
    if (this.#isOn) return;
    this.#isOn = true;
    this.#known = Promise.withResolvers();
    this.#ended = Promise.withResolvers();
  }

  /** Sets the roots that will be restored, after the journal was read. */
  expect(roots: readonly JournalRoot[]): void {
    this.#pending = new Map(
      roots
        .filter(({ digest }) => digest !== undefined)
        .map((root) => [nameOf(root.key, root.reference), root]),
    );
    this.#known.resolve();
  }

  /** Returns a root that a request waits for. */
  takeWanted(): JournalRoot | undefined {
    const [name] = this.#wanted.keys();
    return name === undefined ? undefined : this.#pending?.get(name);
  }

  /** @returns false if it was restored earlier because a request waited for it */
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

  /** Ends all waits: every root is restored, or will not be. */
  end(): void {
    this.#isOn = false;
    this.#pending = undefined;
    this.#timedOut.clear();
    for (const wanted of this.#wanted.values()) wanted.resolve();
    this.#wanted.clear();
    this.#known.resolve();
    this.#ended.resolve();
  }

  /**
   * Waits for a root of the journal.
   *
   * @returns whether the caller must read the index again
   */
  async forRoot(key: RepositoryKey, reference: Reference): Promise<boolean> {
    const name = nameOf(key, reference);
    return this.#within(name, async () => {
      await this.#restored(name);
    });
  }

  /** Waits for a blob that a root may name. @param isStored whether its file exists */
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

  /** @returns false if no root of that name will be restored */
  async #restored(name: string): Promise<boolean> {
    await this.#known.promise;
    if (this.#pending?.has(name) !== true) return false;
    const wanted = this.#wanted.get(name) ?? Promise.withResolvers<void>();
    this.#wanted.set(name, wanted);
    await wanted.promise;
    return true;
  }

  async #within(name: string, wait: () => Promise<void>): Promise<boolean> {
    if (!this.#isOn || this.#timedOut.has(name)) return false;
    if (this.#timedOut.size >= MAX_TIMED_OUT) return false;
    const end = new AbortController();
    const isRestored = await Promise.race([
      wait().then(() => true),
      delay(this.#patienceMs, false, { signal: end.signal, ref: false }),
    ]);
    end.abort();
    if (isRestored) return true;
    this.#timedOut.add(name);
    const digest = this.#pending?.get(name)?.digest;
    if (digest !== undefined) this.#timedOut.add(digest);
    return false;
  }
}

/**
 * Returns an index for requests. Its lookups wait for the rebuild if a row is missing. The rebuild
 * itself uses the index directly.
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
  // All other methods are those of the index, without overhead.
  return Object.setPrototypeOf(waiting, index) as MetadataIndex;
}

function nameOf(key: RepositoryKey, reference: Reference): string {
  return `${pathOf(key)} ${referenceText(reference)}`;
}
