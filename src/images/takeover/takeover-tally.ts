import type { Digest } from "../../oci/digest.ts";
import type {
  ProblemKind,
  Taken,
  TakeoverCounts,
  TakeoverProblem,
  TakeoverProgress,
} from "./takeover.ts";

/** Damaged blobs that are remembered, so that each is reported once. */
const MAX_DAMAGED = 10_000;

export interface TallySinks {
  readonly onProblem: (problem: TakeoverProblem) => void;
  readonly onProgress: (progress: TakeoverProgress) => void;
}

/** Counts what a take-over did, and reports problems and progress. */
export class TakeoverTally {
  readonly #sinks: TallySinks;
  readonly #total: number;
  readonly #damaged = new Set<Digest>();
  #done = 0;
  #verifiedBytes = 0;
  #counts = {
    repositories: 0,
    tags: 0,
    manifests: 0,
    blobs: 0,
    bytes: 0,
    copiedBlobs: 0,
    copiedBytes: 0,
    presentBlobs: 0,
    incomplete: 0,
    unnamedBlobs: 0,
    problemCount: 0,
  };

  /** @param total the links of the folder */
  constructor(total: number, sinks: TallySinks) {
    this.#total = total;
    this.#sinks = sinks;
  }

  get counts(): TakeoverCounts {
    return this.#counts;
  }

  problem(kind: ProblemKind, name: string, message: string): void {
    this.report({ kind, name, message });
  }

  report(problem: TakeoverProblem): void {
    this.#counts.problemCount += 1;
    this.#sinks.onProblem(problem);
  }

  /** Reports a damaged blob once, although several repositories may link it. */
  damaged(path: string, digest: Digest, message: string): void {
    if (this.#damaged.has(digest)) return;
    if (this.#damaged.size < MAX_DAMAGED) this.#damaged.add(digest);
    this.problem("damaged", path, message);
  }

  repository(): void {
    this.#counts.repositories += 1;
  }

  tag(): void {
    this.#counts.tags += 1;
  }

  manifest(tags: number): void {
    this.#counts.manifests += 1;
    this.#counts.tags += tags;
  }

  incomplete(): void {
    this.#counts.incomplete += 1;
  }

  unnamed(blobs: number): void {
    this.#counts.unnamedBlobs += blobs;
    this.#done += blobs;
  }

  /** Counts one link of a repository that was examined. */
  taken(taken: Taken, sizeBytes: number): void {
    const counts = this.#counts;
    if (taken.kind === "present") counts.presentBlobs += 1;
    if (taken.kind === "linked" || taken.kind === "copied") {
      counts.blobs += 1;
      counts.bytes += sizeBytes;
    }
    if (taken.kind === "copied") {
      counts.copiedBlobs += 1;
      counts.copiedBytes += sizeBytes;
    }
    this.step();
  }

  /** Counts bytes of a blob that is being verified. */
  verified(bytes: number): void {
    this.#verifiedBytes += bytes;
    this.showProgress();
  }

  step(): void {
    this.#done += 1;
    this.showProgress();
  }

  showProgress(): void {
    // A dry run verifies nothing.
    const bytes = Math.max(this.#verifiedBytes, this.#counts.bytes);
    this.#sinks.onProgress({ done: this.#done, total: this.#total, bytes });
  }
}
