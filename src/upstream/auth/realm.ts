import { isIP } from "node:net";
import { withoutBrackets } from "../../wire/url-host.ts";

/** The policy for the token realms of an upstream. */
export interface RealmPolicy {
  /** The upstream's key in the configuration. */
  readonly upstream: string;
  /** The endpoint that sent the challenge. */
  readonly endpoint: URL;
  /** Hosts with or without a port, listed by the operator. */
  readonly tokenRealms: readonly string[];
}

export type RealmVerdict =
  | { readonly realm: URL }
  /** The reason, for the log and the operator. */
  | { readonly refusal: string };

/**
 * Decides whether a token may be requested from a realm. Allowed are the endpoint's own origin, its
 * registrable domain, auth.docker.io for docker.io, and hosts in `tokenRealms`; https must stay https.
 * The policy also applies without credentials: a challenge must not make the mirror send requests to
 * hosts that the operator does not know.
 *
 * @see https://publicsuffix.org/ for what a registrable domain is; the private section counts
 */
export async function judgeRealm(
  text: string | undefined,
  policy: RealmPolicy,
): Promise<RealmVerdict> {
  if (text === undefined || !URL.canParse(text)) {
    return { refusal: "got a challenge without a valid realm" };
  }
  const realm = new URL(text);
  const { endpoint } = policy;
  if (realm.protocol !== "https:" && realm.protocol !== "http:") {
    return { refusal: "got a token realm that is not an http or https URL" };
  }
  if (realm.username !== "" || realm.password !== "") {
    return { refusal: `got a token realm on ${realm.host} with credentials` };
  }
  realm.hash = "";
  if (realm.origin === endpoint.origin) return { realm };
  if (endpoint.protocol === "https:" && realm.protocol !== "https:") {
    return { refusal: `got a token realm on ${realm.host} without https` };
  }
  const isKnown =
    policy.tokenRealms.some((listed) => isListed(listed, realm)) ||
    isDockerHub(policy, realm) ||
    (await isOfSameDomain(endpoint, realm));
  return isKnown
    ? { realm }
    : {
        refusal: `got a token realm on ${realm.host}, foreign to ${endpoint.host}; add it to tokenRealms to allow it`,
      };
}

function isListed(listed: string, realm: URL): boolean {
  const entry = listed.toLowerCase();
  return (
    entry === realm.host ||
    entry === realm.hostname ||
    entry === `${realm.hostname}:${defaultPort(realm)}`
  );
}

function defaultPort(url: URL): string {
  return url.port === ""
    ? url.protocol === "https:"
      ? "443"
      : "80"
    : url.port;
}

/** Recognised without the Public Suffix List, so that the most common upstream does not load it. */
function isDockerHub({ upstream, endpoint }: RealmPolicy, realm: URL): boolean {
  return (
    (upstream === "docker.io" ||
      endpoint.hostname === "registry-1.docker.io") &&
    realm.protocol === "https:" &&
    realm.host === "auth.docker.io"
  );
}

async function isOfSameDomain(endpoint: URL, realm: URL): Promise<boolean> {
  if (isAddress(endpoint.hostname) || isAddress(realm.hostname)) return false;
  // Imported here: only upstreams whose realm is on another host need the 7 MB of public suffixes.
  const { getDomain } = await import("tldts");
  const options = { allowPrivateDomains: true };
  const domain = getDomain(realm.hostname, options);
  return domain !== null && domain === getDomain(endpoint.hostname, options);
}

function isAddress(hostname: string): boolean {
  return isIP(withoutBrackets(hostname)) !== 0;
}
