import type { Login } from "../credentials/login.ts";
import type { ExchangeRequest } from "../../wire/exchange.ts";
import { type Identity, requestHeaders } from "../../wire/request-headers.ts";

/** The parameters of a token. One realm may serve many services, a service many scopes. */
export interface TokenRequest {
  /** Already judged by `judgeRealm`: credentials are sent to it. */
  readonly realm: URL;
  readonly service: string | undefined;
  /** As in the challenge; several scopes are separated by spaces. */
  readonly scope: string;
  /** Undefined: anonymous. */
  readonly login: Login | undefined;
}

/** An identity token is sent by POST, or by GET if the realm does not support POST. */
export type TokenMethod = "GET" | "POST";

/**
 * Answers to a POST by realms without OAuth2: 400 by older Azure realms, 401 by Artifactory, 404 by Google.
 *
 * @see clients.md section 4
 */
export const POST_REFUSED: ReadonlySet<number> = new Set([400, 401, 404, 405]);

const CLIENT_ID = "entrepot";
/** The user name that Azure's registry documents for log-ins by token. */
const TOKEN_USER = "00000000-0000-0000-0000-000000000000";

/**
 * @see https://distribution.github.io/distribution/spec/auth/token/ for GET
 * @see https://distribution.github.io/distribution/spec/auth/oauth/ for POST
 */
export function tokenExchange(
  request: TokenRequest,
  method: TokenMethod,
  identity: Identity,
  signal: AbortSignal,
): ExchangeRequest {
  const { login } = request;
  const accept = "application/json";
  if (method === "POST" && login !== undefined) {
    return {
      kind: "token",
      method,
      url: request.realm,
      headers: requestHeaders(identity, {
        accept,
        contentType: "application/x-www-form-urlencoded",
      }),
      body: tokenForm(request, login),
      signal,
    };
  }
  return {
    kind: "token",
    method: "GET",
    url: tokenUrl(request),
    headers: requestHeaders(identity, {
      accept,
      authorization: login && basicAuthorization(login),
    }),
    signal,
  };
}

export function basicAuthorization({ username, secret }: Login): string {
  const pair = `${userOf(username)}:${secret.reveal()}`;
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}

/** Returns a cache key; it holds no secret. */
export function tokenKey({
  realm,
  service,
  scope,
  login,
}: TokenRequest): string {
  return JSON.stringify([realm.href, service, scope, login?.id]);
}

/** The secret is sent in a body only, which is never logged. */
function tokenForm({ service, scope }: TokenRequest, login: Login): string {
  const form = new URLSearchParams({ client_id: CLIENT_ID });
  if (service !== undefined) form.append("service", service);
  if (scope !== "") form.append("scope", scope);
  form.append("grant_type", "refresh_token");
  form.append("refresh_token", login.secret.reveal());
  return form.toString();
}

/** Keeps the query of the realm and appends to it. */
function tokenUrl({ realm, service, scope, login }: TokenRequest): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.append("service", service);
  for (const one of scope.split(" ")) {
    if (one !== "") url.searchParams.append("scope", one);
  }
  if (login !== undefined) {
    url.searchParams.append("account", userOf(login.username));
  }
  return url;
}

function userOf(username: string): string {
  return username === "" ? TOKEN_USER : username;
}
