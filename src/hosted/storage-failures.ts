import { RegistryError } from "../oci/errors.ts";
import { StorageError } from "../storage/blob-store.ts";
import { IndexError } from "../storage/metadata-index.ts";

/** How long a client waits before it tries again while the storage is not available. */
const RETRY_AFTER_MS = 5_000;

/** No room for the user, or on the medium. */
const NO_ROOM_CODES: ReadonlySet<string> = new Set([
  "ENOSPC",
  "EDQUOT",
  "SQLITE_FULL",
]);

/**
 * Maps a failure of the storage to the error for the client: 507 if there is no room, 503 if the
 * storage is not available. Other errors are returned unchanged.
 */
export function explainStorageFailure(error: unknown): unknown {
  if (!(error instanceof StorageError || error instanceof IndexError)) {
    return error;
  }
  if (isNoRoom(error)) {
    return new RegistryError("UNAVAILABLE", {
      status: 507,
      message: "the registry has no space left",
      cause: error,
    });
  }
  return new RegistryError("UNAVAILABLE", {
    status: 503,
    message: "the registry's storage is not available",
    retryAfterMs: RETRY_AFTER_MS,
    cause: error,
  });
}

function isNoRoom(error: Error): boolean {
  let cause: unknown = error;
  // The index wraps the errors of SQLite, which wrap those of the system.
  for (let depth = 0; depth < 4 && cause instanceof Error; depth++) {
    if ("code" in cause && NO_ROOM_CODES.has(String(cause.code))) return true;
    ({ cause } = cause);
  }
  return false;
}
