import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";
import {
  type Candidate,
  type CandidateNode,
  chooseVictims,
  endsWithRoot,
  isPartlyPulled,
  type Released,
  type Victim,
} from "./choose-victims.ts";
import type { ImageGraph } from "../storage/graph-index.ts";
import type { RoomLimits } from "./room-limits.ts";
import type { IndexCursor } from "../storage/index-cursor.ts";
import type { RetentionIndex, RootRow } from "../storage/root-index.ts";
import type { TrackedBlobStore } from "../storage/tracked-blob-store.ts";

export type VictimIndex = Pick<ImageGraph, "getNode" | "listChildren"> &
  Pick<RetentionIndex, "listOldestRoots">;

/** A partly stored image that was used this recently is being pulled, even if none of its blobs is open now. */
const ARRIVING_MS = 60_000;
/** How long a step may block the event loop before it leaves a turn to other work. */
const STEP_MS = 2;
const ROOTS_PER_PAGE = 16;

/** How much to free, and from which roots. */
export interface EvictionTarget {
  readonly goalBytes: number;
  readonly usedBeforeMs?: number;
  readonly maxVictims?: number;
}

export interface VictimSearchOptions {
  readonly index: VictimIndex;
  readonly blobs: Pick<TrackedBlobStore, "isBusy">;
  readonly limits: RoomLimits;
  readonly clock: Clock;
}

/** Reads the roots, least recently pulled first, until enough of them can be evicted. */
export class VictimSearch {
  readonly #options: VictimSearchOptions;
  /** Every root before it is protected by a pattern. */
  #keptUntil: IndexCursor | undefined;

  constructor(options: VictimSearchOptions) {
    this.#options = options;
  }

  /** Starts again at the first root, including the protected ones. */
  rewind(): void {
    this.#keptUntil = undefined;
  }

  async choose(target: EvictionTarget, pace: Pace): Promise<Victim[]> {
    const { index, blobs, limits } = this.#options;
    const { usedBeforeMs = Infinity, maxVictims = Infinity } = target;
    const released: Released = new Map();
    const victims: Victim[] = [];
    const arrivingAfterMs = this.#options.clock.nowMs() - ARRIVING_MS;
    let goalBytes = target.goalBytes;
    let after = this.#keptUntil;
    let isAllKept = true;
    for (;;) {
      const { roots, next } = await index.listOldestRoots(
        ROOTS_PER_PAGE,
        after,
      );
      for (const root of roots) {
        if (root.usedAtMs >= usedBeforeMs) return victims;
        if (limits.isKept(root)) continue;
        isAllKept = false;
        await pace.step();
        const candidate = await this.#readCandidate(root, released, pace);
        if (root.usedAtMs > arrivingAfterMs && isPartlyPulled(candidate))
          continue;
        const [victim] = chooseVictims(
          [candidate],
          {
            goalBytes,
            isKept: () => false,
            isBusy: (digest) => blobs.isBusy(digest),
          },
          released,
        );
        if (victim === undefined) continue;
        victims.push(victim);
        goalBytes -= victim.freedBytes;
        if (goalBytes <= 0 || victims.length >= maxVictims) return victims;
      }
      if (next === undefined) return victims;
      if (isAllKept) this.#keptUntil = next;
      after = next;
      await pace.step();
    }
  }

  /** Reads the part of a root's graph that would be removed with the root. */
  async #readCandidate(
    root: RootRow,
    released: Released,
    pace: Pace,
  ): Promise<Candidate> {
    const { index } = this.#options;
    const graph = new Map<Digest, CandidateNode>();
    const top = await index.getNode(root.digest);
    if (top === undefined) return { root, graph };
    graph.set(root.digest, { ...top, children: [] });
    const queue = endsWithRoot(top, released) ? [top] : [];
    for (;;) {
      const node = queue.pop();
      if (node === undefined) return { root, graph };
      if (!node.isManifest) continue;
      const children: Digest[] = [];
      let after: IndexCursor | undefined;
      do {
        const page = await index.listChildren(node.digest, after);
        for (const child of page.nodes) {
          children.push(child.digest);
          if (graph.has(child.digest)) continue;
          graph.set(child.digest, { ...child, children: [] });
          if (child.sizeBytes !== undefined) queue.push(child);
        }
        after = page.next;
        await pace.step();
      } while (after !== undefined);
      graph.set(node.digest, { ...node, children });
    }
  }
}

/** Leaves a turn to other work before a step has taken too long. */
export class Pace {
  #sinceMs = performance.now();

  async step(): Promise<void> {
    if (performance.now() - this.#sinceMs < STEP_MS) return;
    await nextTurn();
    this.#sinceMs = performance.now();
  }
}
