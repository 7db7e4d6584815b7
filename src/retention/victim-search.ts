import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";
import {
  type Candidate,
  type CandidateNode,
  chooseVictims,
  endsWithRoot,
  isHalf,
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

/** An image that is half there and was asked for so lately is being pulled, though no blob of it may be open now. */
const ARRIVING_MS = 60_000;
/** What one step may take of the event loop's time before others get their turn. */
const STEP_MS = 2;
const ROOTS_AT_ONCE = 16;

/** What is to be freed, and of which roots at most. */
export interface Wanted {
  readonly goalBytes: number;
  readonly usedBeforeMs?: number;
  readonly maxVictims?: number;
}

/** Reads the roots, the one that was pulled longest ago first, until enough of them are found that may go. */
export class VictimSearch {
  readonly #options: {
    readonly index: VictimIndex;
    readonly blobs: TrackedBlobStore;
    readonly limits: RoomLimits;
    readonly clock: Clock;
  };
  /** Every root before it is kept by a pattern. */
  #keptUntil: IndexCursor | undefined;

  constructor(options: {
    readonly index: VictimIndex;
    readonly blobs: TrackedBlobStore;
    readonly limits: RoomLimits;
    readonly clock: Clock;
  }) {
    this.#options = options;
  }

  /** Looks from the first root on again, the kept ones too. */
  rewind(): void {
    this.#keptUntil = undefined;
  }

  async choose(wanted: Wanted, pace: Pace): Promise<Victim[]> {
    const { index, blobs, limits } = this.#options;
    const { usedBeforeMs = Infinity, maxVictims = Infinity } = wanted;
    const released: Released = new Map();
    const victims: Victim[] = [];
    const arrivingAfterMs = this.#options.clock.nowMs() - ARRIVING_MS;
    let goalBytes = wanted.goalBytes;
    let after = this.#keptUntil;
    let isAllKept = true;
    for (;;) {
      const { roots, next } = await index.listOldestRoots(ROOTS_AT_ONCE, after);
      for (const root of roots) {
        if (root.usedAtMs >= usedBeforeMs) return victims;
        if (limits.isKept(root)) continue;
        isAllKept = false;
        await pace.step();
        const candidate = await this.#readCandidate(root, released, pace);
        if (root.usedAtMs > arrivingAfterMs && isHalf(candidate)) continue;
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

  /** Reads a root's graph, as far as it ends with the root. */
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
    const waiting = endsWithRoot(top, released) ? [top] : [];
    for (;;) {
      const node = waiting.pop();
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
          if (child.sizeBytes !== undefined) waiting.push(child);
        }
        after = page.next;
        await pace.step();
      } while (after !== undefined);
      graph.set(node.digest, { ...node, children });
    }
  }
}

/** Gives others their turn before a step has taken too long. */
export class Pace {
  #sinceMs = performance.now();

  async step(): Promise<void> {
    if (performance.now() - this.#sinceMs < STEP_MS) return;
    await nextTurn();
    this.#sinceMs = performance.now();
  }
}
