import { createHash } from "node:crypto";
import type { Clock } from "../../src/telemetry/clock.ts";
import type { WireRequest } from "./wire-request.ts";

export interface BasicAuth {
  readonly scheme: "basic";
  /** Names to passwords. */
  readonly users: Readonly<Record<string, string>>;
}

export interface BearerAuth {
  readonly scheme: "bearer";
  /** Users that may get a token, besides anonymous clients. */
  readonly users?: Readonly<Record<string, string>>;
  /** Refresh tokens to users, for the `refresh_token` grant; each is its user's password too, for GET. */
  readonly refreshTokens?: Readonly<Record<string, string>>;
  /** Answer to a POST; default: a token. */
  readonly postStatus?: 400 | 401 | 404 | 405;
  /** Whether clients without credentials get a token; default true. */
  readonly anonymous?: boolean;
  /** `origin` is the registry's own, `port` another port of its host, `host` 127.0.0.2. */
  readonly realm?: "origin" | "port" | "host";
  /** Path of the realm; default `/token`. */
  readonly tokenPath?: string;
  readonly service?: string;
  readonly tokenField?: "token" | "access_token" | "both";
  /** Default 300; `missing` omits the field, and the token is valid for 60 s. */
  readonly expiresInSeconds?: number | "missing";
  /** Scope in the challenge, if it is not the repository's. */
  readonly challengeScope?: string;
}

export type UpstreamAuth = BasicAuth | BearerAuth;

/** Answer of the token endpoint. */
export interface TokenAnswer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

const DEFAULT_SERVICE = "scripted";

/** Issues bearer tokens and checks them. */
export class ScriptedTokens {
  readonly #auth: BearerAuth;
  readonly #clock: Clock;
  readonly #tokens = new Map<
    string,
    {
      readonly scopes: readonly string[];
      readonly expiresAtMs: number;
      readonly user: string | undefined;
    }
  >();
  #issuedCount = 0;

  constructor(auth: BearerAuth, clock: Clock) {
    this.#auth = auth;
    this.#clock = clock;
  }

  get service(): string {
    return this.#auth.service ?? DEFAULT_SERVICE;
  }

  get path(): string {
    return this.#auth.tokenPath ?? "/token";
  }

  /** Number of tokens issued so far. */
  get issuedCount(): number {
    return this.#issuedCount;
  }

  /** Invalidates all tokens issued so far. */
  revoke(): void {
    this.#tokens.clear();
  }

  /** Returns the user of the token in an `Authorization`. */
  userOf(authorization: string | undefined): string | undefined {
    const token = /^Bearer (.+)$/i.exec(authorization ?? "")?.[1] ?? "";
    return this.#tokens.get(token)?.user;
  }

  /** Answers GET with Basic or nothing, and POST with a form (`password` or `refresh_token` grant). */
  answer(request: WireRequest): TokenAnswer {
    if (request.method === "POST" && this.#auth.postStatus !== undefined) {
      return { status: this.#auth.postStatus, body: {} };
    }
    const form =
      request.method === "POST"
        ? new URLSearchParams(request.body.toString("utf8"))
        : new URL(request.target, "http://token.invalid").searchParams;
    const user =
      request.method === "POST"
        ? (this.#refreshed(form) ?? credentialOf(form))
        : basicCredential(request.headers["authorization"]);
    if (
      user === undefined ? this.#auth.anonymous === false : !this.#isKnown(user)
    ) {
      return {
        status: 401,
        body: { errors: [{ code: "UNAUTHORIZED", message: "no such user" }] },
      };
    }
    const scopes = form.getAll("scope").flatMap((scope) => scope.split(" "));
    this.#issuedCount += 1;
    const token = createHash("sha256")
      .update(`${this.#issuedCount} ${scopes.join(" ")}`)
      .digest("base64url");
    const { expiresInSeconds = 300, tokenField = "token" } = this.#auth;
    const livesSeconds = expiresInSeconds === "missing" ? 60 : expiresInSeconds;
    this.#tokens.set(token, {
      scopes,
      expiresAtMs: this.#clock.nowMs() + livesSeconds * 1000,
      user: user?.name,
    });
    return {
      status: 200,
      body: {
        ...(tokenField === "access_token" ? {} : { token }),
        ...(tokenField === "token" ? {} : { access_token: token }),
        ...(expiresInSeconds === "missing"
          ? {}
          : { expires_in: expiresInSeconds }),
      },
    };
  }

  /** @returns undefined if the token permits the pull, or else the `error` of the challenge; empty without a token */
  fault(
    authorization: string | undefined,
    repository: string | undefined,
  ): string | undefined {
    const token = /^Bearer (.+)$/i.exec(authorization ?? "")?.[1];
    if (token === undefined) return "";
    const known = this.#tokens.get(token);
    if (known === undefined || known.expiresAtMs <= this.#clock.nowMs()) {
      return "invalid_token";
    }
    const isCovered =
      repository === undefined ||
      known.scopes.includes(this.scope(repository)) ||
      this.#auth.challengeScope !== undefined;
    return isCovered ? undefined : "insufficient_scope";
  }

  #isKnown({ name, password }: { name: string; password: string }): boolean {
    return (
      this.#auth.users?.[name] === password ||
      this.#auth.refreshTokens?.[password] === name
    );
  }

  #refreshed(
    form: URLSearchParams,
  ): { name: string; password: string } | undefined {
    const password = form.get("refresh_token") ?? "";
    const name = this.#auth.refreshTokens?.[password];
    return form.get("grant_type") !== "refresh_token" || name === undefined
      ? undefined
      : { name, password };
  }

  scope(repository: string): string {
    return this.#auth.challengeScope ?? `repository:${repository}:pull`;
  }
}

export function basicCredential(
  authorization: string | undefined,
): { name: string; password: string } | undefined {
  const encoded = /^Basic (.+)$/i.exec(authorization ?? "")?.[1];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return { name: text.slice(0, colon), password: text.slice(colon + 1) };
}

function credentialOf(
  form: URLSearchParams,
): { name: string; password: string } | undefined {
  const name = form.get("username");
  const password = form.get("password");
  return name === null || password === null ? undefined : { name, password };
}
