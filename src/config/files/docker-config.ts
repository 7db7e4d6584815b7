import { Secret } from "../config.ts";

/** The account of one registry in a Docker `config.json`. */
export interface DockerLogin {
  readonly username: string;
  readonly secret: Secret;
  /** Whether the secret is an OAuth2 refresh token instead of a password. */
  readonly isIdentityToken: boolean;
}

/** The credentials of a Docker `config.json`; hosts in lower case. */
export interface DockerConfig {
  readonly logins: ReadonlyMap<string, DockerLogin>;
  /** Names of programs without their prefix `docker-credential-`. */
  readonly helpers: ReadonlyMap<string, string>;
  /** The helper for all other registries. */
  readonly store: string | undefined;
}

/** The server under which `docker login` without a registry stores the account. */
const DOCKER_HUB_SERVER = "https://index.docker.io/v1/";
const DOCKER_HUB_HOSTS: readonly string[] = [
  "index.docker.io",
  "docker.io",
  "registry-1.docker.io",
];
/** The name of a program in `PATH`; not a path. */
const HELPER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/**
 * Reads `auths`, `credHelpers` and `credsStore`; undefined if the text is not a JSON mapping. Invalid
 * entries are ignored, as Docker does.
 *
 * @see https://docs.docker.com/reference/cli/docker/login/
 */
export function parseDockerConfig(text: string): DockerConfig | undefined {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isMapping(content)) return undefined;
  const logins = new Map<string, DockerLogin>();
  for (const [key, entry] of entriesOf(content["auths"])) {
    const host = hostOf(key);
    const login = isMapping(entry) ? loginOf(entry) : undefined;
    if (host !== undefined && login !== undefined) logins.set(host, login);
  }
  const helpers = new Map<string, string>();
  for (const [key, helper] of entriesOf(content["credHelpers"])) {
    const host = hostOf(key);
    if (host !== undefined && isHelperName(helper)) helpers.set(host, helper);
  }
  const store = content["credsStore"];
  return { logins, helpers, store: isHelperName(store) ? store : undefined };
}

/**
 * Returns the names under which an endpoint's credentials are stored: only its own host; Docker Hub has
 * several.
 */
export function dockerServers(endpoint: URL): readonly string[] {
  const { host, hostname, port, protocol } = endpoint;
  if (DOCKER_HUB_HOSTS.includes(host)) return DOCKER_HUB_HOSTS;
  if (port !== "") return [host];
  return [host, `${hostname}:${protocol === "https:" ? 443 : 80}`];
}

/** Returns the server name that a credential helper receives. */
export function helperServer(endpoint: URL): string {
  return DOCKER_HUB_HOSTS.includes(endpoint.host)
    ? DOCKER_HUB_SERVER
    : endpoint.host;
}

/** Accepts `https://index.docker.io/v1/` and `quay.io`, but not podman's `quay.io/acme`, which covers only a part of the host. */
function hostOf(key: string): string | undefined {
  return /^(?:https?:\/\/)?([^/\s]+)(?:\/v[12])?\/?$/i
    .exec(key)?.[1]
    ?.toLowerCase();
}

function loginOf(entry: Record<string, unknown>): DockerLogin | undefined {
  const pair = decodePair(entry["auth"]);
  const username = textOf(entry["username"]) ?? pair?.username ?? "";
  const token = textOf(entry["identitytoken"]);
  if (token !== undefined) {
    return { username, secret: new Secret(token), isIdentityToken: true };
  }
  const password = textOf(entry["password"]) ?? pair?.password;
  return username === "" || password === undefined
    ? undefined
    : { username, secret: new Secret(password), isIdentityToken: false };
}

/** Decodes base64 of `user:password`; some programs pad it with NULs. */
function decodePair(
  value: unknown,
):
  | { readonly username: string; readonly password: string | undefined }
  | undefined {
  if (typeof value !== "string") return undefined;
  const text = Buffer.from(value, "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 1) return undefined;
  const password = text.slice(colon + 1).replace(/\0+$/, "");
  return {
    username: text.slice(0, colon),
    password: password === "" ? undefined : password,
  };
}

function isHelperName(value: unknown): value is string {
  return typeof value === "string" && HELPER_NAME.test(value);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function entriesOf(value: unknown): [string, unknown][] {
  return isMapping(value) ? Object.entries(value) : [];
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
