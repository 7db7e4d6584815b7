import type { Logger } from "../../../telemetry/logger.ts";
import type { StorageAbsence } from "../../storage.ts";
import type { DiskLayout } from "./disk-layout.ts";
import {
  type FileIdentity,
  identifyFile,
  identifyFileNow,
  identifyFolder,
  identifyFolderNow,
} from "./file-identity.ts";
import { type Schedule, scheduleUnref } from "../../../telemetry/clock.ts";

const CHECK_EVERY_MS = 2_000;
/** A file system that takes longer counts as absent; with {@link CHECK_EVERY_MS} that is noticed within 10 s. */
const PATIENCE_MS = 6_000;

/** Has the code of the system's error for a file whose file system is gone. */
export class RootAwayError extends Error {
  readonly code = "ESTALE";

  constructor() {
    super("ESTALE: the storage root is not at its path");
    this.name = "RootAwayError";
  }
}

export interface RootWatchOptions {
  readonly layout: DiskLayout;
  readonly log: Pick<Logger, "info" | "error">;
  readonly onChange: (absence: StorageAbsence | undefined) => void;
  readonly schedule?: Schedule;
  readonly nowMs?: () => number;
  /** Identifies root and lock file; undefined for an absent or unreadable one. Never rejects. */
  readonly identify?: () => Promise<Identities>;
}

type Identities = readonly [
  root: FileIdentity | undefined,
  lock: FileIdentity | undefined,
];

/**
 * Watches whether the storage root is still the one that was opened: a different folder at its path,
 * or a different lock file, belongs to another process. Both are checked every two seconds and before
 * every write by path. A check that hangs blocks one thread of the pool and nothing else.
 */
export class RootWatch {
  readonly #options: RootWatchOptions;
  readonly #schedule: Schedule;
  readonly #nowMs: () => number;
  readonly #identify: () => Promise<Identities>;
  readonly #root: FileIdentity | undefined;
  readonly #lock: FileIdentity | undefined;
  #absence: StorageAbsence | undefined;
  #pendingCheck: { readonly startedAtMs: number } | undefined;
  #cancel: (() => void) | undefined;

  /** Created after the lock is held. */
  constructor(options: RootWatchOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    const { root, lockFile } = options.layout;
    this.#identify =
      options.identify ??
      (() =>
        Promise.all([
          identifyFolder(root).catch(() => undefined),
          identifyFile(lockFile).catch(() => undefined),
        ]));
    this.#root = identifyFolderNow(root);
    this.#lock = identifyFileNow(lockFile);
    this.#scheduleCheck();
  }

  /** Undefined while the root is at its path. */
  get absence(): StorageAbsence | undefined {
    return this.#absence;
  }

  get isAway(): boolean {
    return this.#absence !== undefined;
  }

  /** Checks now, on the calling thread, for the rare write that can't wait. */
  isHereNow(): boolean {
    const { root, lockFile } = this.#options.layout;
    return (
      !this.isAway &&
      identifyFolderNow(root) === this.#root &&
      identifyFileNow(lockFile) === this.#lock
    );
  }

  /** Checks now. @throws RootAwayError */
  async assertHere(): Promise<void> {
    if (!this.isAway) this.#set(await this.#find());
    if (this.isAway) throw new RootAwayError();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #scheduleCheck(): void {
    this.#cancel = this.#schedule(() => {
      this.#scheduleCheck();
      void this.#check();
    }, CHECK_EVERY_MS);
  }

  async #check(): Promise<void> {
    if (this.#pendingCheck !== undefined) {
      const waitedMs = this.#nowMs() - this.#pendingCheck.startedAtMs;
      if (waitedMs >= PATIENCE_MS) this.#set("the root does not answer");
      return;
    }
    this.#pendingCheck = { startedAtMs: this.#nowMs() };
    const found = await this.#find();
    this.#pendingCheck = undefined;
    if (this.#cancel !== undefined) this.#set(found);
  }

  async #find(): Promise<StorageAbsence | undefined> {
    const [rootNow, lockNow] = await this.#identify();
    if (rootNow !== this.#root) {
      return "the root was moved, deleted or unmounted";
    }
    return lockNow === this.#lock
      ? undefined
      : "the lock file was replaced or removed";
  }

  #set(absence: StorageAbsence | undefined): void {
    if (absence === this.#absence) return;
    const wasAway = this.isAway;
    this.#absence = absence;
    const { log, layout, onChange } = this.#options;
    const { root } = layout;
    if (absence !== undefined) {
      log.error(
        { root, fault: absence },
        "the storage is not used: pulls pass through until the same root and lock file are at their path",
      );
    } else if (wasAway) {
      log.info({ root }, "the storage root is at its path and used again");
    }
    onChange(absence);
  }
}
