import type { Authorization, SentAuthorization } from "./authorization.ts";
import { CredentialError, type Login } from "../credentials/login.ts";
import { askRoot } from "../endpoint-root.ts";
import type { Permit } from "../endpoint-health.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Exchange } from "../../wire/exchange.ts";
import { isGivenUp } from "../../wire/faults.ts";
import type { Identity } from "../../wire/request-headers.ts";
import { dismiss, type HeldAnswer } from "../../wire/retry.ts";

/** A missing token, an old one, and a scope that did not suffice: one request may meet two of them. */
const MAX_CHALLENGES_ANSWERED = 2;

export interface AuthorizedRequestsOptions {
  readonly endpoint: URL;
  readonly identity: Identity;
  /** Sends to the endpoint's own origin. */
  readonly exchange: Exchange;
  readonly authorization: Authorization;
}

export interface AuthorizedRequest {
  /** The repository's name at the endpoint. */
  readonly name: string;
  /** Undefined: anonymous. */
  readonly login: Login | undefined;
  /** False: a 401 to a valid token is an answer. */
  readonly isTokenDoubted: boolean;
  /** The endpoint's permit. */
  readonly permit: Pick<Permit, "fail" | "abandon">;
  readonly signal: AbortSignal;
  readonly send: (
    authorization: SentAuthorization | undefined,
  ) => Promise<HeldAnswer>;
}

/** Sends requests with the authorization that the endpoint demands. */
export class AuthorizedRequests {
  readonly #options: AuthorizedRequestsOptions;
  #isUnauthorized = false;

  constructor(options: AuthorizedRequestsOptions) {
    this.#options = options;
  }

  /** True if no token or login was available at the last request that needed one. */
  get isUnauthorized(): boolean {
    return this.#isUnauthorized;
  }

  /** Notes a failure outside of {@link send}: a login that cannot be read. */
  noteFailure(error: unknown): void {
    if (isAuthorizationFault(error)) this.#isUnauthorized = true;
  }

  /** @throws UpstreamError as {@link Authorization} does, and the errors of `send` */
  async send(request: AuthorizedRequest): Promise<HeldAnswer> {
    const { name, login, signal, isTokenDoubted, send, permit } = request;
    const { authorization, endpoint } = this.#options;
    let sent = await this.#reporting(
      authorization.prepare(name, login, signal),
      permit,
      undefined,
    );
    for (let answered = 0; ; answered++) {
      const held = await send(sent);
      const { answer } = held;
      const isChallenge =
        answer.status === 401 &&
        answer.url.origin === endpoint.origin &&
        answered < MAX_CHALLENGES_ANSWERED &&
        (sent?.value === undefined || isTokenDoubted);
      if (!isChallenge) {
        if (answer.status !== 401) {
          this.#isUnauthorized = false;
          if (sent !== undefined) authorization.noteAnswered(name, sent);
        }
        return held;
      }
      dismiss(held);
      sent = await this.#reporting(
        authorization.answer(
          name,
          answer.header("www-authenticate") ?? (await this.#ping(signal)),
          sent,
          login,
          signal,
        ),
        permit,
        answer.status,
      );
    }
  }

  /**
   * Requests the challenge of the API's root, after a 401 without a challenge (gcr.io).
   *
   * @see clients.md section 4
   */
  async #ping(signal: AbortSignal): Promise<string | undefined> {
    const answer = await askRoot(this.#options, this.#options.endpoint, signal);
    return answer.status === 401
      ? answer.header("www-authenticate")
      : undefined;
  }

  /** @param status the endpoint's answer to the same request, if any */
  async #reporting<T>(
    work: Promise<T>,
    permit: AuthorizedRequest["permit"],
    status: number | undefined,
  ): Promise<T> {
    try {
      return await work;
    } catch (error) {
      this.noteFailure(error);
      this.#reportRealm(error, permit, status);
      throw error;
    }
  }

  /**
   * Reports the failure of a realm. It says nothing about the endpoint or the resource, even if both are
   * one server: a failed token of one repository must not open the breaker of a registry.
   */
  #reportRealm(
    error: unknown,
    permit: AuthorizedRequest["permit"],
    status: number | undefined,
  ): void {
    if (!(error instanceof UpstreamError)) return;
    // The request is sent again with another account.
    if (error instanceof CredentialError || error.kind === "rate-limited") {
      return;
    }
    if (status === undefined) {
      permit.abandon();
      return;
    }
    const { origin } = this.#options.endpoint;
    const { upstream } = error;
    permit.fail(
      new UpstreamError("unauthorized", `${origin}: got status ${status}`, {
        upstream,
        origin,
        status,
      }),
    );
  }
}

/** True if the login was refused or the realm failed; a refused scope is an answer. */
function isAuthorizationFault(error: unknown): boolean {
  if (!(error instanceof UpstreamError) || isGivenUp(error)) return false;
  const isRefusal = error.kind === "unauthorized" || error.kind === "denied";
  return error instanceof CredentialError || !isRefusal;
}
