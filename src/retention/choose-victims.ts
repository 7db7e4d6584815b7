import type { Digest } from "../oci/digest.ts";
import type { GraphNode } from "../storage/graph-index.ts";
import type { RootRow } from "../storage/root-index.ts";

export interface CandidateNode extends GraphNode {
  /** The digests that it names, each once; empty unless it is a stored manifest. */
  readonly children: readonly Digest[];
}

/** A root and its graph as the index has them, without the effect of earlier victims. */
export interface Candidate {
  readonly root: RootRow;
  /** Everything reachable from the root's digest, itself included. */
  readonly graph: ReadonlyMap<Digest, CandidateNode>;
}

/** A root that is evicted. */
export interface Victim {
  readonly root: RootRow;
  /** Blobs that no other root needs after it and the earlier victims are gone; a manifest before its children. */
  readonly digests: readonly Digest[];
  readonly freedBytes: number;
}

export interface ChoiceRules {
  /** Bytes to free; Infinity: every candidate. */
  readonly goalBytes: number;
  /** Whether a pattern protects the root. */
  readonly isKept: (root: RootRow) => boolean;
  /** Whether the blob is being read or written. */
  readonly isBusy: (digest: Digest) => boolean;
}

/** How many holders of each blob the victims so far have released. */
export type Released = Map<Digest, number>;

/**
 * Chooses which images to evict: the candidates in their order, least recently pulled first, until
 * enough bytes are freed. A blob is evicted with the last root that needs it. Skipped are protected
 * roots, and roots with a part that would be removed while it is read or written.
 *
 * Pure except for `released`, which carries the state from one call to the next.
 */
export function chooseVictims(
  candidates: Iterable<Candidate>,
  rules: ChoiceRules,
  released: Released = new Map(),
): Victim[] {
  const victims: Victim[] = [];
  let freedBytes = 0;
  for (const candidate of candidates) {
    if (freedBytes >= rules.goalBytes) break;
    if (candidate.root.isPinned || rules.isKept(candidate.root)) continue;
    const victim = judge(candidate, rules, released);
    if (victim === undefined) continue;
    victims.push(victim);
    freedBytes += victim.freedBytes;
  }
  return victims;
}

/** More than the config, which the mirror prefetches for each image of an index. */
const MIN_PULLED_CHILDREN = 2;

/**
 * Returns whether, judged by its graph, a pull of the candidate has started and not ended: a manifest
 * is stored without all its blobs, or an index without any complete image. An image of an index
 * without any stored layer was not pulled.
 */
export function isPartlyPulled({ root, graph }: Candidate): boolean {
  const top = graph.get(root.digest);
  if (top === undefined) return false;
  const isStored = (digest: Digest): boolean =>
    graph.get(digest)?.sizeBytes !== undefined;
  const isComplete = ({ children }: CandidateNode): boolean =>
    children.every(isStored);
  const manifests = [...graph.values()].filter(
    ({ isManifest, digest }) => isManifest && digest !== root.digest,
  );
  if (manifests.length === 0) return !isComplete(top);
  const images = manifests.filter(
    ({ children }) =>
      children.length > 0 &&
      !children.some((child) => graph.get(child)?.isManifest === true),
  );
  return (
    !images.some(isComplete) ||
    images.some(
      (image) =>
        !isComplete(image) &&
        image.children.filter(isStored).length >= MIN_PULLED_CHILDREN,
    )
  );
}

/** Returns whether the node is removed together with a root that points to it, so that its graph matters. */
export function endsWithRoot(node: GraphNode, released: Released): boolean {
  return (released.get(node.digest) ?? 0) + 1 >= node.holders;
}

/** Releases one holder per node, starting at the root. A node without holders is removed and releases its children. */
function judge(
  { root, graph }: Candidate,
  { isBusy }: ChoiceRules,
  released: Released,
): Victim | undefined {
  const changed: Released = new Map();
  const digests: Digest[] = [];
  const queue = [root.digest];
  let freedBytes = 0;
  for (;;) {
    const digest = queue.pop();
    if (digest === undefined) break;
    const node = graph.get(digest);
    if (node?.sizeBytes === undefined) {
      if (isBusy(digest)) return undefined;
      continue;
    }
    const count = (changed.get(digest) ?? released.get(digest) ?? 0) + 1;
    changed.set(digest, count);
    if (count < node.holders) continue;
    if (isBusy(digest)) return undefined;
    digests.push(digest);
    freedBytes += node.sizeBytes;
    queue.push(...node.children);
  }
  for (const [digest, count] of changed) released.set(digest, count);
  return { root, digests, freedBytes };
}
