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
/** A file system that takes longer is away; with {@link CHECK_EVERY_MS} it is noticed within 10 s. */
const PATIENCE_MS = 6_000;

/** As the system's error of a file that is on no file system any more. */
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
  /** Root and lock file as they are now, undefined if nothing can be seen there. Never rejects. */
  readonly look?: () => Promise<Seen>;
}

type Seen = readonly [
  root: FileIdentity | undefined,
  lock: FileIdentity | undefined,
];

/**
 * Watches whether the storage root is still what was opened: another folder at its path, or another
 * lock file, belongs to another process. Looks at both every two seconds and before every write by
 * a path; a look that hangs holds up one thread of the pool and nothing else.
 */
export class RootWatch {
  readonly #options: RootWatchOptions;
  readonly #schedule: Schedule;
  readonly #nowMs: () => number;
  readonly #lookAtBoth: () => Promise<Seen>;
  readonly #root: FileIdentity | undefined;
  readonly #lock: FileIdentity | undefined;
  #absence: StorageAbsence | undefined;
  #look: { readonly startedAtMs: number } | undefined;
  #cancel: (() => void) | undefined;

  /** The lock is held. */
  constructor(options: RootWatchOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    const { root, lockFile } = options.layout;
    this.#lookAtBoth =
      options.look ??
      (() =>
        Promise.all([
          identifyFolder(root).catch(() => undefined),
          identifyFile(lockFile).catch(() => undefined),
        ]));
    this.#root = identifyFolderNow(root);
    this.#lock = identifyFileNow(lockFile);
    this.#lookLater();
  }

  /** Undefined as long as the root is there. */
  get absence(): StorageAbsence | undefined {
    return this.#absence;
  }

  get isAway(): boolean {
    return this.#absence !== undefined;
  }

  /** Looks now, on the calling thread: for the rare write that can't wait. */
  isHereNow(): boolean {
    const { root, lockFile } = this.#options.layout;
    return (
      !this.isAway &&
      identifyFolderNow(root) === this.#root &&
      identifyFileNow(lockFile) === this.#lock
    );
  }

  /** Looks now. @throws RootAwayError */
  async assertHere(): Promise<void> {
    if (!this.isAway) this.#set(await this.#find());
    if (this.isAway) throw new RootAwayError();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #lookLater(): void {
    this.#cancel = this.#schedule(() => {
      this.#lookLater();
      void this.#lookOnce();
    }, CHECK_EVERY_MS);
  }

  async #lookOnce(): Promise<void> {
    if (this.#look !== undefined) {
      const waitedMs = this.#nowMs() - this.#look.startedAtMs;
      if (waitedMs >= PATIENCE_MS) this.#set("the root does not answer");
      return;
    }
    this.#look = { startedAtMs: this.#nowMs() };
    const found = await this.#find();
    this.#look = undefined;
    if (this.#cancel !== undefined) this.#set(found);
  }

  async #find(): Promise<StorageAbsence | undefined> {
    const [rootNow, lockNow] = await this.#lookAtBoth();
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
        "the storage is not used: pulls pass through until the same root and lock file are back",
      );
    } else if (wasAway) {
      log.info({ root }, "the storage root is back and used again");
    }
    onChange(absence);
  }
}
