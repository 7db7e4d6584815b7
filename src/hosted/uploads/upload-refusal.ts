import { RegistryError } from "../../oci/errors.ts";
import { explainStorageFailure } from "../storage-failures.ts";
import { BrokenUploadBody } from "./upload-body.ts";

/** An error of a request to an open upload; the response states the bytes that the upload has. */
export class UploadRefusal extends Error {
  readonly error: RegistryError;
  /** Undefined: the upload has ended. */
  readonly writtenBytes: number | undefined;

  constructor(error: RegistryError, writtenBytes?: number) {
    super(error.message, { cause: error });
    this.name = "UploadRefusal";
    this.error = error;
    this.writtenBytes = writtenBytes;
  }
}

/** Uploads end within seconds, and idle ones are closed within half a minute. */
const LIMIT_RETRY_MS = 5_000;

const NO_SPACE_STATUS = 507;

/** Returns whether bytes could not be stored because there is no room for them. */
export function isOutOfSpace(error: unknown): boolean {
  return asRegistryError(error)?.status === NO_SPACE_STATUS;
}

export function noSpace(): RegistryError {
  return new RegistryError("UNAVAILABLE", {
    status: NO_SPACE_STATUS,
    message: "the registry has no space left",
  });
}

export function tooManyUploads(): RegistryError {
  return new RegistryError("TOOMANYREQUESTS", {
    detail: "too many uploads are open",
    retryAfterMs: LIMIT_RETRY_MS,
  });
}

export function unknownUpload(): RegistryError {
  return new RegistryError("BLOB_UPLOAD_UNKNOWN");
}

/** Returns the one error of a chunk that clients handle: they ask for the offset and continue from it. */
export function busyUpload(): RegistryError {
  return new RegistryError("RANGE_INVALID", {
    detail: "another request of this upload is in progress",
  });
}

const CUTS = {
  left: [400, "the client closed the connection"],
  stalled: [408, "no bytes arrived for too long; the upload can be resumed"],
  replaced: [400, "another request continues this upload"],
  cancelled: [400, "the upload was cancelled"],
} as const;

/** Returns the error for the client; undefined if it is a bug. */
export function asRegistryError(error: unknown): RegistryError | undefined {
  if (error instanceof RegistryError) return error;
  if (error instanceof BrokenUploadBody) {
    const [status, detail] = CUTS[error.reason];
    return new RegistryError("BLOB_UPLOAD_INVALID", {
      status,
      detail,
      cause: error,
    });
  }
  const explained = explainStorageFailure(error);
  return explained instanceof RegistryError ? explained : undefined;
}
