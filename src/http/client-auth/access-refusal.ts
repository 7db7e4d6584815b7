import { RegistryError } from "../../oci/errors.ts";

/** A request that is not let through: what it is told, and the headers beside. */
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

/** 401; @param challenge the text of `WWW-Authenticate` */
export function unauthorized(challenge: string): AccessRefusal {
  return new AccessRefusal(new RegistryError("UNAUTHORIZED"), {
    "WWW-Authenticate": challenge,
  });
}

/** 429: too many wrong passwords from there, or too many that are looked at. */
export function tooManyLogIns(retryAfterMs: number): AccessRefusal {
  return new AccessRefusal(
    new RegistryError("TOOMANYREQUESTS", {
      detail: "too many failed log-ins",
      retryAfterMs,
    }),
  );
}
