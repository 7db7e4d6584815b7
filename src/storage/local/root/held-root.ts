import type { Logger } from "../../../telemetry/logger.ts";
import type { StorageAbsence } from "../../storage.ts";
import type { DiskLayout } from "./disk-layout.ts";
import type { FileSystem } from "./file-system.ts";
import { guardFileSystem } from "./guarded-file-system.ts";
import { acquireInstanceLock } from "./instance-lock.ts";
import { RootWatch } from "./root-watch.ts";

/** A storage root that this process holds exclusively and watches. */
export interface HeldRoot {
  readonly layout: DiskLayout;
  /** Refuses to write while the root is absent. */
  readonly fileSystem: FileSystem;
  readonly watch: RootWatch;
  release(): void;
}

/**
 * Locks a root and starts to watch it.
 *
 * @throws RootInUseError; StorageError if the lock file can't be created
 */
export function holdRoot(
  layout: DiskLayout,
  options: {
    readonly fileSystem: FileSystem;
    readonly log: Pick<Logger, "info" | "error">;
    readonly onChange: (absence: StorageAbsence | undefined) => void;
  },
): HeldRoot {
  const { fileSystem, log, onChange } = options;
  const lock = acquireInstanceLock(layout);
  try {
    const watch = new RootWatch({ layout, log, onChange });
    return {
      layout,
      fileSystem: guardFileSystem(fileSystem, watch),
      watch,
      release: () => {
        watch.stop();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}
