import { RegistryError } from "../../oci/errors.ts";

/** A request that is not admitted: the error and the headers of its response. */
export class AccessRefusal extends Error {
  readonly error: RegistryError;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    error: RegistryError,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(error.message);
    this.name = "AccessRefusal";
    this.error = error;
    this.headers = headers;
  }
}

/** Returns a 401. @param challenge the value of `WWW-Authenticate` */
export function unauthorized(challenge: string): AccessRefusal {
  return new AccessRefusal(new RegistryError("UNAUTHORIZED"), {
    "WWW-Authenticate": challenge,
  });
}

/** Returns a 429: too many wrong passwords of a source, or too many that wait to be checked. */
export function tooManyLogIns(retryAfterMs: number): AccessRefusal {
  return new AccessRefusal(
    new RegistryError("TOOMANYREQUESTS", {
      detail: "too many failed log-ins",
      retryAfterMs,
    }),
  );
}
