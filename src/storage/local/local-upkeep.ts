import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type {
  DroppedBlob,
  ScrubFinding,
  ScrubReport,
} from "../scrub-report.ts";
import type {
  BackgroundScrubRequest,
  ScrubRequest,
  StorageAbsence,
  StorageSpace,
  StorageUpkeep,
} from "../storage.ts";
import type { TrackedBlobStore } from "../tracked-blob-store.ts";
import type { HostedGate } from "./durable/hosted-gate.ts";
import { LeftPartials } from "./blobs/left-partials.ts";
import type { KeptIndex } from "./index/kept-index.ts";
import type { Ballast } from "./root/ballast.ts";
import { readDiskSpace } from "./root/disk-space.ts";
import type { HeldRoot } from "./root/held-root.ts";
import { BackgroundScrub } from "./upkeep/background-scrub.ts";
import type { IndexAudit } from "./upkeep/index-audit.ts";
import type { Recovery } from "./upkeep/recovery.ts";
import { Scrub, type ScrubParts } from "./upkeep/scrub.ts";
import { settleIntents } from "./upkeep/settle-intents.ts";

export interface LocalUpkeepParts {
  readonly held: HeldRoot;
  readonly blobs: TrackedBlobStore;
  readonly kept: KeptIndex;
  readonly ballast: Ballast;
  readonly recovery: Recovery;
  readonly gate: HostedGate;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
}

/** The upkeep of an open storage root. */
export class LocalUpkeep implements StorageUpkeep {
  readonly #parts: LocalUpkeepParts;

  constructor(parts: LocalUpkeepParts) {
    this.#parts = parts;
  }

  get absence(): StorageAbsence | undefined {
    return this.#parts.held.watch.absence;
  }

  get isRecovering(): boolean {
    return this.#parts.recovery.isRunning;
  }

  get isOutOfRoom(): boolean {
    return this.#parts.ballast.isReleased;
  }

  get audit(): IndexAudit {
    return this.#parts.kept.audit;
  }

  get scrubParts(): ScrubParts {
    const { held, kept, clock } = this.#parts;
    const { layout, fileSystem } = held;
    const index = { audit: kept.audit, rows: kept.index };
    return { layout, fileSystem, index, clock };
  }

  recovered(): Promise<void> {
    return this.#parts.recovery.ended();
  }

  /** While the root is absent another disk may be mounted at its path. */
  readSpace(): Promise<StorageSpace | undefined> {
    return this.absence === undefined
      ? readDiskSpace(this.#parts.held.layout.root)
      : Promise.resolve(undefined);
  }

  async clearLeftovers(partialsBytes: number): Promise<void> {
    const { held, blobs, kept, gate, clock, log } = this.#parts;
    const { layout, fileSystem } = held;
    const { index } = kept;
    const parts = { layout, fileSystem, index, blobs, clock, log };
    await new LeftPartials(parts).trim(partialsBytes);
    await settleIntents({ ...parts, isReplaying: gate.isOn });
  }

  async scrub(request: ScrubRequest): Promise<ScrubReport> {
    const { kept } = this.#parts;
    const { isRepair } = request;
    const scrub = new Scrub({ ...this.scrubParts, ...request, isOnline: true });
    if ((await kept.findDamage(false)).length > 0) {
      if (isRepair) await kept.replace("found by a scrub");
      scrub.noteDamage(isRepair);
      return scrub.report;
    }
    return scrub.run();
  }

  async dropBlob(
    digest: Digest,
    verdict: "wrong" | "unreadable",
    onDropped: (dropped: DroppedBlob) => void,
  ): Promise<readonly ScrubFinding[]> {
    const scrub = new Scrub({
      ...this.scrubParts,
      isRepair: true,
      isOnline: true,
      onDropped,
    });
    const code = verdict === "wrong" ? "blob-corrupt" : "blob-unreadable";
    await scrub.dropBlob(code, digest);
    return scrub.report.findings;
  }

  startBackgroundScrub(request: BackgroundScrubRequest): BackgroundScrub {
    const { clock, log } = this.#parts;
    return new BackgroundScrub({
      ...request,
      parts: () => this.scrubParts,
      clock,
      log,
    });
  }

  /** Reserves room for the index again if a full disk made it release it. Never rejects. */
  restoreBallast(): Promise<void> {
    return this.#parts.ballast.restore();
  }
}
