import type { Digest } from "../../oci/digest.ts";
import { MAX_MANIFEST_BYTES, parseManifest } from "../../oci/manifest.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type {
  DistributionFolder,
  FolderRepository,
} from "./distribution-folder.ts";
import type {
  Failed,
  FolderManifest,
  Taken,
  TakeoverTarget,
  TakeoverWork,
} from "./takeover.ts";
import type { TakeoverTally } from "./takeover-tally.ts";

/** Blobs that are verified concurrently. */
const BLOBS_AT_ONCE = 4;
/** Tags that the name of a manifest lists. */
const MAX_NAMED_TAGS = 3;

export interface TakeRepositoryParts {
  readonly folder: DistributionFolder;
  readonly target: TakeoverTarget;
  readonly tally: TakeoverTally;
  readonly signal: AbortSignal;
}

/**
 * Takes over one repository, bottom-up: blobs, then image manifests, then the indexes that name them,
 * each with its tags. A part that fails is reported, and the rest is taken.
 *
 * @throws StorageError, IndexError; the signal's reason
 */
export async function takeRepository(
  parts: TakeRepositoryParts,
  repository: FolderRepository,
): Promise<void> {
  const key = parts.target.keyOf(repository.name);
  if (key === undefined) {
    parts.tally.problem("refused", repository.name, "the name is too long");
    return;
  }
  await new RepositoryTaker(parts, repository, key).run();
}

/** Blobs of images and of indexes, and manifests of indexes. */
interface Children {
  readonly isIndex: boolean;
  readonly blobs: readonly Digest[];
  readonly manifests: readonly Digest[];
}

class RepositoryTaker {
  readonly #parts: TakeRepositoryParts;
  readonly #repository: FolderRepository;
  readonly #key: RepositoryKey;
  readonly #work: TakeoverWork;
  /** The tags to record, by the digest that they have. */
  readonly #tags = new Map<Digest, Tag[]>();
  readonly #names = new Map<Digest, Tag[]>();
  /** The result of each blob that was tried. */
  readonly #blobs = new Map<Digest, Taken>();
  readonly #manifests = new Set<Digest>();
  /** Manifests whose parts are all there; of an index, those of one child. */
  readonly #complete = new Set<Digest>();

  constructor(
    parts: TakeRepositoryParts,
    repository: FolderRepository,
    key: RepositoryKey,
  ) {
    this.#parts = parts;
    this.#repository = repository;
    this.#key = key;
    const { signal, tally } = parts;
    this.#work = { signal, onBytes: (bytes) => tally.verified(bytes) };
  }

  async run(): Promise<void> {
    const { target, tally } = this.#parts;
    const { blobs, manifests } = this.#repository;
    await this.#judgeTags();
    if (target.takesParts) await this.#takeBlobs([...blobs]);
    const indexes = new Map<Digest, readonly Digest[]>();
    for (const digest of manifests) {
      const found = await this.#read(digest);
      if (found === undefined) continue;
      const children = childrenOf(found);
      if (children.isIndex) indexes.set(digest, children.manifests);
      else await this.#take(found, children);
    }
    for (const digest of bottomUp(indexes)) {
      const found = await this.#read(digest);
      if (found !== undefined) await this.#take(found, childrenOf(found));
    }
    if (!target.takesParts) {
      let unnamed = 0;
      for (const digest of blobs) if (!this.#blobs.has(digest)) unnamed += 1;
      tally.unnamed(unnamed);
    }
    if (blobs.size + manifests.size > 0) tally.repository();
  }

  /** Decides which tags are recorded. */
  async #judgeTags(): Promise<void> {
    const { target, tally } = this.#parts;
    const { name, tags, manifests } = this.#repository;
    for (const found of tags) {
      const { tag, digest } = found;
      const text = `${name}:${tag}`;
      if (!manifests.has(digest)) {
        const message = `its manifest ${digest} was deleted or has expired`;
        tally.problem("missing", text, message);
        continue;
      }
      add(this.#names, digest, tag);
      const verdict = await target.judgeTag(this.#key, found);
      if (verdict.kind === "refused") {
        tally.problem("refused", text, verdict.message);
      } else if (verdict.kind === "take") add(this.#tags, digest, tag);
      else tally.tag();
    }
  }

  async #read(digest: Digest): Promise<FolderManifest | undefined> {
    const { folder, tally, signal } = this.#parts;
    signal.throwIfAborted();
    const found = await folder.readManifest(digest, MAX_MANIFEST_BYTES);
    if (!("problem" in found)) return found;
    tally.problem(found.problem, this.#nameOf(digest), found.message);
    tally.step();
    return undefined;
  }

  /** Takes a manifest and, for a target that needs all of its blobs, those first. */
  async #take(manifest: FolderManifest, children: Children): Promise<void> {
    const { target, tally } = this.#parts;
    const { digest } = manifest;
    const tags = this.#tags.get(digest) ?? [];
    if (!target.takesParts) await this.#takeBlobs(children.blobs);
    const lacking = this.#findLacking(children);
    let taken: Taken | undefined = target.takesParts ? undefined : lacking;
    taken ??= await target.takeManifest(this.#key, manifest, tags, this.#work);
    tally.taken(taken, manifest.sizeBytes);
    if (taken.kind === "failed") {
      tally.problem(taken.problem, this.#nameOf(digest), taken.message);
      return;
    }
    this.#manifests.add(digest);
    tally.manifest(tags.length);
    if (lacking !== undefined) {
      tally.problem(lacking.problem, this.#nameOf(digest), lacking.message);
    }
    const isComplete = children.isIndex
      ? children.manifests.some((child) => this.#complete.has(child))
      : children.blobs.every((blob) => this.#isTaken(blob));
    if (isComplete) this.#complete.add(digest);
    else tally.incomplete();
  }

  #isTaken(blob: Digest): boolean {
    const taken = this.#blobs.get(blob);
    return taken !== undefined && taken.kind !== "failed";
  }

  /**
   * Returns the failure of the first part that was not taken although the repository has it or, if the
   * target needs all parts, has to have it.
   */
  #findLacking({ blobs, manifests }: Children): Failed | undefined {
    for (const blob of blobs) {
      const taken = this.#blobs.get(blob);
      if (taken?.kind !== "failed") continue;
      return { ...taken, message: `${blob}: ${taken.message}` };
    }
    if (this.#parts.target.takesParts) return undefined;
    const lacking = manifests.find((child) => !this.#manifests.has(child));
    if (lacking === undefined) return undefined;
    const message = `it names ${lacking}, which was not taken over`;
    return { kind: "failed", problem: "missing", message };
  }

  async #takeBlobs(digests: readonly Digest[]): Promise<void> {
    const waiting = digests
      .filter((digest) => !this.#blobs.has(digest))
      .values();
    const takers = Array.from({ length: BLOBS_AT_ONCE }, async () => {
      for (const digest of waiting) {
        this.#blobs.set(digest, await this.#takeBlob(digest));
      }
    });
    // None may still write when the storage is closed.
    const results = await Promise.allSettled(takers);
    for (const result of results) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  async #takeBlob(digest: Digest): Promise<Taken> {
    const { folder, target, tally, signal } = this.#parts;
    signal.throwIfAborted();
    if (!this.#repository.blobs.has(digest)) {
      const message = "the repository has no link to it";
      return { kind: "failed", problem: "missing", message };
    }
    const blob = await folder.findBlob(digest);
    let taken: Taken;
    if (blob === undefined) {
      const message = "its bytes are not in blobs/";
      taken = { kind: "failed", problem: "missing", message };
    } else taken = await target.takeBlob(this.#key, blob, this.#work);
    tally.taken(taken, blob?.sizeBytes ?? 0);
    // One that is missing concerns only the manifests that name it: a collection leaves its link.
    if (taken.kind === "failed" && taken.problem === "damaged") {
      tally.damaged(folder.relativePath(digest), digest, taken.message);
    }
    return taken;
  }

  /** Returns the tags of a manifest, or its digest. */
  #nameOf(digest: Digest): string {
    const { name } = this.#repository;
    const tags = this.#names.get(digest) ?? [];
    return tags.length === 0
      ? `${name}@${digest}`
      : tags
          .slice(0, MAX_NAMED_TAGS)
          .map((tag) => `${name}:${tag}`)
          .join(", ");
  }
}

/** A manifest that cannot be parsed has none: its target reports it. */
function childrenOf({ bytes }: FolderManifest): Children {
  const parsed = parseManifest(bytes, undefined);
  if (!parsed.ok) return { isIndex: false, blobs: [], manifests: [] };
  const blobs: Digest[] = [];
  const manifests: Digest[] = [];
  for (const { digest, role, isForeign } of parsed.children) {
    if (role === "manifest") manifests.push(digest);
    else if (!isForeign) blobs.push(digest);
  }
  return { isIndex: parsed.kind === "index", blobs, manifests };
}

/** Sorts indexes so that those that another one names come before it. */
function bottomUp(
  indexes: ReadonlyMap<Digest, readonly Digest[]>,
): readonly Digest[] {
  const sorted = new Set<Digest>();
  for (const root of indexes.keys()) {
    // An index is on the stack twice: to open it, and after its children. A digest cannot name itself.
    const stack: { readonly digest: Digest; readonly isOpen: boolean }[] = [
      { digest: root, isOpen: false },
    ];
    for (;;) {
      const next = stack.pop();
      if (next === undefined) break;
      const { digest, isOpen } = next;
      if (isOpen) sorted.add(digest);
      if (isOpen || sorted.has(digest)) continue;
      stack.push({ digest, isOpen: true });
      for (const child of indexes.get(digest) ?? []) {
        if (indexes.has(child)) stack.push({ digest: child, isOpen: false });
      }
    }
  }
  return [...sorted];
}

function add<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}
