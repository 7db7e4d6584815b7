/**
 * The error codes that a registry responds with: those of the distribution-spec, and those that a
 * mirror needs in addition.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
 */
const CODES = {
  BLOB_UNKNOWN: [404, "blob unknown to registry"],
  BLOB_UPLOAD_INVALID: [400, "blob upload invalid"],
  BLOB_UPLOAD_UNKNOWN: [404, "blob upload unknown to registry"],
  DENIED: [403, "requested access to the resource is denied"],
  DIGEST_INVALID: [400, "provided digest is not valid"],
  MANIFEST_BLOB_UNKNOWN: [400, "manifest references an unknown blob"],
  MANIFEST_INVALID: [502, "upstream's manifest is invalid"],
  MANIFEST_UNKNOWN: [404, "manifest unknown to registry"],
  NAME_INVALID: [400, "invalid repository name"],
  NAME_UNKNOWN: [404, "repository name not known to registry"],
  PAGINATION_NUMBER_INVALID: [400, "invalid number of results requested"],
  RANGE_INVALID: [416, "requested range is not satisfiable"],
  SIZE_INVALID: [400, "provided length did not match content length"],
  TAG_INVALID: [400, "provided tag is not valid"],
  TOOMANYREQUESTS: [429, "too many requests"],
  UNAUTHORIZED: [401, "authentication required"],
  UNAVAILABLE: [502, "upstream unavailable"],
  UNKNOWN: [500, "unknown error"],
  UNSUPPORTED: [405, "the operation is unsupported"],
} as const satisfies Record<string, readonly [number, string]>;

export type RegistryErrorCode = keyof typeof CODES;

export const REGISTRY_ERROR_CODES = Object.keys(
  CODES,
) as readonly RegistryErrorCode[];

export interface RegistryErrorOptions {
  /** Replaces the table's message, which for some codes describes the mirror. */
  readonly message?: string;
  /** Sent to the client as `errors[0].detail`: text of this program, never of an upstream. */
  readonly detail?: string;
  /**
   * Replaces the table's status: 503, 504 or 507 for `UNAVAILABLE`, 400 for a malformed request or a
   * pushed manifest, 413 or 416 for an upload.
   */
  readonly status?: number;
  /** Sent as `Retry-After`, rounded up to whole seconds. */
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

/** An error meant for the client; `http/registry/refusals.ts` writes it. */
export class RegistryError extends Error {
  readonly code: RegistryErrorCode;
  readonly status: number;
  readonly detail: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: RegistryErrorCode, options: RegistryErrorOptions = {}) {
    const [status, message] = CODES[code];
    super(options.message ?? message, { cause: options.cause });
    this.name = "RegistryError";
    this.code = code;
    this.status = options.status ?? status;
    this.detail = options.detail;
    this.retryAfterMs = options.retryAfterMs;
  }

  /** The body of the response: `{"errors":[{code, message, detail}]}`. */
  toBody(): string {
    return registryErrorBody(this.code, this.message, this.detail);
  }
}

export function registryErrorBody(
  code: RegistryErrorCode,
  message: string = CODES[code][1],
  detail?: string,
): string {
  return JSON.stringify({
    errors: [{ code, message, ...(detail === undefined ? {} : { detail }) }],
  });
}
