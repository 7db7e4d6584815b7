import { isIP } from "node:net";
import { withoutBrackets } from "../../wire/url-host.ts";

/** What decides where an upstream's tokens may be fetched. */
export interface RealmPolicy {
  /** The upstream's key in the configuration. */
  readonly upstream: string;
  /** The endpoint that sent the challenge. */
  readonly endpoint: URL;
  /** Hosts, or hosts with a port, that the operator listed. */
  readonly tokenRealms: readonly string[];
}

export type RealmVerdict =
  | { readonly realm: URL }
  /** Why not, for the log and the operator. */
  | { readonly refusal: string };

/**
 * Whether a token may be asked of a realm: on the endpoint's own origin, on its registrable domain,
 * on docker.io's auth.docker.io, or on a host in `tokenRealms`; https stays https. The same holds
 * without credentials: a challenge alone sends no request to a place that the operator does not know.
 *
 * @see https://publicsuffix.org/ for what a registrable domain is; the private section counts
 */
export async function judgeRealm(
  text: string | undefined,
  policy: RealmPolicy,
): Promise<RealmVerdict> {
  if (text === undefined || !URL.canParse(text)) {
    return { refusal: "the challenge has no usable realm" };
  }
  const realm = new URL(text);
  const { endpoint } = policy;
  if (realm.protocol !== "https:" && realm.protocol !== "http:") {
    return { refusal: "the token realm is no http or https URL" };
  }
  if (realm.username !== "" || realm.password !== "") {
    return { refusal: `the token realm on ${realm.host} holds credentials` };
  }
  realm.hash = "";
  if (realm.origin === endpoint.origin) return { realm };
  if (endpoint.protocol === "https:" && realm.protocol !== "https:") {
    return { refusal: `the token realm on ${realm.host} is not https` };
  }
  const isKnown =
    policy.tokenRealms.some((listed) => isListed(listed, realm)) ||
    isDockerHub(policy, realm) ||
    (await isOfSameDomain(endpoint, realm));
  return isKnown
    ? { realm }
    : {
        refusal: `the token realm on ${realm.host} is foreign to ${endpoint.host}; tokenRealms may list it`,
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

/** Known without the Public Suffix List, so the commonest upstream never loads it. */
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
  // 7 MB of public suffixes: only for those whose realm is on another host.
  const { getDomain } = await import("tldts");
  const options = { allowPrivateDomains: true };
  const domain = getDomain(realm.hostname, options);
  return domain !== null && domain === getDomain(endpoint.hostname, options);
}

function isAddress(hostname: string): boolean {
  return isIP(withoutBrackets(hostname)) !== 0;
}
