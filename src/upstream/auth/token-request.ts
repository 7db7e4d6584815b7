import type { Login } from "../credentials/login.ts";
import type { ExchangeRequest } from "../../wire/exchange.ts";
import { type Identity, requestHeaders } from "../../wire/request-headers.ts";

/** What a token is for. One realm may serve many services, a service many scopes. */
export interface TokenRequest {
  /** Judged before: credentials go there. */
  readonly realm: URL;
  readonly service: string | undefined;
  /** As the challenge told it; several are parted by spaces. */
  readonly scope: string;
  /** Undefined: anonymous. */
  readonly login: Login | undefined;
}

/** An identity token goes by POST, and by GET where the realm takes no POST. */
export type TokenMethod = "GET" | "POST";

/**
 * What realms without OAuth2 answer to a POST: Azure's older ones 400, Artifactory 401, Google 404.
 *
 * @see clients.md section 4
 */
export const POST_REFUSED: ReadonlySet<number> = new Set([400, 401, 404, 405]);

const CLIENT_ID = "entrepot";
/** The name that Azure's registry documents for whoever signs in by a token. */
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

/** For caches; no secret is in it. */
export function tokenKey({
  realm,
  service,
  scope,
  login,
}: TokenRequest): string {
  return JSON.stringify([realm.href, service, scope, login?.id]);
}

/** Only in a body, which nobody logs. */
function tokenForm({ service, scope }: TokenRequest, login: Login): string {
  const form = new URLSearchParams({ client_id: CLIENT_ID });
  if (service !== undefined) form.append("service", service);
  if (scope !== "") form.append("scope", scope);
  form.append("grant_type", "refresh_token");
  form.append("refresh_token", login.secret.reveal());
  return form.toString();
}

/** A realm may hold a query of its own; it stays in front. */
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
