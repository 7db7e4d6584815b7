import type { Digest } from "../oci/digest.ts";
import type { GraphNode } from "../storage/graph-index.ts";
import type { RootRow } from "../storage/root-index.ts";

export interface CandidateNode extends GraphNode {
  /** What it names, each once; empty for what is no stored manifest. */
  readonly children: readonly Digest[];
}

/** A root and its graph as the index has them, whoever went before it. */
export interface Candidate {
  readonly root: RootRow;
  /** Everything that the root's digest leads to, itself included. */
  readonly graph: ReadonlyMap<Digest, CandidateNode>;
}

/** A root that goes. */
export interface Victim {
  readonly root: RootRow;
  /** What nobody needs once it and those chosen before it are gone; a manifest before what it names. */
  readonly digests: readonly Digest[];
  readonly freedBytes: number;
}

export interface ChoiceRules {
  /** Enough once so much is freed; Infinity: every candidate. */
  readonly goalBytes: number;
  /** Never goes: pinned, or covered by a pattern. */
  readonly isKept: (root: RootRow) => boolean;
  /** Is read, or on its way in. */
  readonly isBusy: (digest: Digest) => boolean;
}

/** How many holders of each blob went with the victims so far. */
export type Released = Map<Digest, number>;

/**
 * Chooses which images go: the candidates in their order, the one pulled longest ago first, until
 * enough is freed. A blob goes with the last root that needs it. Passed by are kept roots, and
 * those of which a part that would go is read or a part is on its way in.
 *
 * Pure but for `released`, which carries a choice on from one call to the next.
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

/** More than the config that the mirror fetches by itself for each image of an index. */
const MIN_PULLED_CHILDREN = 2;

/**
 * Whether a pull of the candidate has begun and not ended, as far as its graph tells: a manifest is
 * there without all its blobs, or an index without any image that is whole. An image of an index of
 * which no layer is there was not pulled.
 */
export function isHalf({ root, graph }: Candidate): boolean {
  const top = graph.get(root.digest);
  if (top === undefined) return false;
  const isStored = (digest: Digest): boolean =>
    graph.get(digest)?.sizeBytes !== undefined;
  const isWhole = ({ children }: CandidateNode): boolean =>
    children.every(isStored);
  const manifests = [...graph.values()].filter(
    ({ isManifest, digest }) => isManifest && digest !== root.digest,
  );
  if (manifests.length === 0) return !isWhole(top);
  const images = manifests.filter(
    ({ children }) =>
      children.length > 0 &&
      !children.some((child) => graph.get(child)?.isManifest === true),
  );
  return (
    !images.some(isWhole) ||
    images.some(
      (image) =>
        !isWhole(image) &&
        image.children.filter(isStored).length >= MIN_PULLED_CHILDREN,
    )
  );
}

/** Whether a root's end ends what it points to, and so its graph is worth reading. */
export function endsWithRoot(node: GraphNode, released: Released): boolean {
  return (released.get(node.digest) ?? 0) + 1 >= node.holders;
}

/** Counts holders down from the root; what has none left goes, and is a holder less of its children. */
function judge(
  { root, graph }: Candidate,
  { isBusy }: ChoiceRules,
  released: Released,
): Victim | undefined {
  const changed: Released = new Map();
  const digests: Digest[] = [];
  const waiting = [root.digest];
  let freedBytes = 0;
  for (;;) {
    const digest = waiting.pop();
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
    waiting.push(...node.children);
  }
  for (const [digest, count] of changed) released.set(digest, count);
  return { root, digests, freedBytes };
}
