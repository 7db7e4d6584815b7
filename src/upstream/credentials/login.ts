import type { Secret } from "../../config/config.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { UpstreamError } from "../../wire/errors.ts";

/** The identity that the mirror currently uses at an endpoint. */
export interface Login {
  /** Empty if only an identity token is known. */
  readonly username: string;
  readonly secret: Secret;
  /** The secret is a refresh token of OAuth2, not a password. */
  readonly isIdentityToken: boolean;
  /** Differs for each secret: a key for caches, which must not hold the secret itself. */
  readonly id: string;
}

/** A source of an endpoint's login, which may change while the mirror runs. */
export interface CredentialSource {
  /**
   * Returns the current login; undefined if the source has none for this endpoint.
   *
   * @throws CredentialError if the source fails
   */
  read(): Promise<Login | undefined>;
  /** Reads the source again after the upstream refused that login; undefined if none is newer. */
  readAgain(refused: Login): Promise<Login | undefined>;
}

export interface CredentialSourceOptions {
  readonly upstream: string;
  readonly endpoint: URL;
  readonly name: string;
  readonly clock: Clock;
}

/**
 * The credentials are at fault, not the request: another account may succeed. `isLocal` if they could
 * not be read, which is not the upstream's fault.
 */
export class CredentialError extends UpstreamError {
  constructor(
    message: string,
    place: {
      readonly upstream: string;
      readonly origin?: string;
      readonly status?: number;
      readonly isLocal?: boolean;
      readonly cause?: unknown;
    },
  ) {
    super("unauthorized", message, place);
    this.name = "CredentialError";
  }
}

/** True if the mirror could not read its own credentials; then no request was sent. */
export function isOwnFault(error: UpstreamError): boolean {
  return error instanceof CredentialError && error.isLocal;
}

/** The logins of one source: a secret that changes gets a new id. */
export class LoginHistory {
  readonly #prefix: string;
  #count = 0;
  #latest: Login | undefined;

  constructor({ endpoint, name }: CredentialSourceOptions) {
    this.#prefix = `${endpoint.origin} ${name}`;
  }

  /** Returns the same object as before if nothing changed. */
  note({ username, secret, isIdentityToken }: Omit<Login, "id">): Login {
    const latest = this.#latest;
    if (
      latest?.username === username &&
      latest.isIdentityToken === isIdentityToken &&
      latest.secret.reveal() === secret.reveal()
    ) {
      return latest;
    }
    this.#count += 1;
    const id = `${this.#prefix} ${this.#count}`;
    this.#latest = { username, secret, isIdentityToken, id };
    return this.#latest;
  }
}

/** Returns the login unless it is the refused one. */
export function newerThan(
  refused: Login,
  login: Login | undefined,
): Login | undefined {
  return login?.id === refused.id ? undefined : login;
}
