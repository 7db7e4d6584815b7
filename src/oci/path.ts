import { type Digest, parseDigest } from "./digest.ts";
import type { RegistryErrorCode } from "./errors.ts";
import {
  isNameAfterPort,
  isSpelledName,
  parseTag,
  type Reference,
  referenceText,
} from "./reference.ts";

/**
 * What a request asks for. `repository` is as the client spelled it: an upstream's name may stand
 * before it, also one with a port, which only the routes refuse.
 */
export type DistributionTarget =
  | { readonly kind: "ping" }
  | ({ readonly kind: "catalog" } & Page)
  | ({ readonly kind: "tags"; readonly repository: string } & Page)
  | {
      readonly kind: "manifest";
      readonly repository: string;
      readonly reference: Reference;
    }
  | {
      readonly kind: "blob";
      readonly repository: string;
      readonly digest: Digest;
    }
  | {
      readonly kind: "referrers";
      readonly repository: string;
      readonly digest: Digest;
      /** A referrer of any of these is wanted; empty: of all. Docker 29 sends several. */
      readonly artifactTypes: readonly string[];
    }
  /** Any path of a push: recognised only so that it can be answered with 405. */
  | { readonly kind: "upload"; readonly repository: string };

/** Which part of a list is wanted. */
export interface Page {
  /** At most {@link MAX_PAGE_SIZE}; 0 is legal and asks for nothing. */
  readonly n: number | undefined;
  /** The list goes on after this one, in ASCII order. */
  readonly last: string | undefined;
}

/** A request's path and query, understood. */
export interface DistributionPath {
  /** What stands before `/v2/`, without slashes at its ends: an upstream's name, if it is one. */
  readonly prefix: string | undefined;
  /** The value of `?ns=`, decoded; not checked against anything. */
  readonly ns: string | undefined;
  readonly target: DistributionTarget;
}

/** Fits `RegistryError(code, refusal)`. `detail` never repeats what the client sent. */
export interface PathRefusal {
  readonly ok: false;
  readonly code: RegistryErrorCode;
  readonly detail: string;
  readonly status?: number;
  /** Answers a GET or HEAD in place of `code`, with its own status. */
  readonly onRead?: RegistryErrorCode;
}

export type ParsedPath =
  ({ readonly ok: true } & DistributionPath) | PathRefusal;

/** A client that asks for more gets this many and a `Link` to the rest. */
export const MAX_PAGE_SIZE = 1000;

/** Two names and a digest fit several times over. */
const MAX_PATH_LENGTH = 2048;
/** Node refuses a longer request head by itself. */
const MAX_QUERY_LENGTH = 16_384;
/** Longer than any tag or `upstream/repository`, so that a cut `last` sorts between the same two names as the whole. */
const MAX_LAST_LENGTH = 1024;
const MAX_ARTIFACT_TYPES = 32;
const MAX_ARTIFACT_TYPE_LENGTH = 255;

/**
 * Reads the request target as it stood on the request line. It is the raw text, because a router's
 * decoded one can't tell `%2F` from `/`. Pure; never throws; linear in the length of the text.
 *
 * Malformed targets are refused with 400 and the code of the part at fault, `NAME_INVALID` where it
 * is none in particular. What is well formed but no path of the API is answered with 404
 * `UNSUPPORTED`: clients that probe for an extension go by the status, and `NAME_UNKNOWN` would
 * make them tell their user that the repository does not exist.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#endpoints
 */
export function parseDistributionPath(rawTarget: string): ParsedPath {
  const queryAt = rawTarget.indexOf("?");
  const rawPath = queryAt === -1 ? rawTarget : rawTarget.slice(0, queryAt);
  const rawQuery = queryAt === -1 ? "" : rawTarget.slice(queryAt + 1);
  if (rawPath.length > MAX_PATH_LENGTH) {
    return refuse("NAME_INVALID", "path is too long");
  }
  if (rawQuery.length > MAX_QUERY_LENGTH) {
    return refuse("NAME_INVALID", "query is too long");
  }
  // An absolute-form target names a host of its own, which a cache must not believe (CVE-2016-4553).
  if (!rawPath.startsWith("/")) {
    return refuse("NAME_INVALID", "request target must start with a slash");
  }
  if (!VISIBLE_ASCII.test(rawTarget)) {
    return refuse("NAME_INVALID", "request target has an illegal character");
  }
  const path = rawPath.replaceAll(/%3a/gi, ":");
  if (path.includes("%")) {
    return refuse("NAME_INVALID", "path must not be percent-encoded");
  }
  if (/\/(?:\.{0,2})\//.test(path) || /\/\.{1,2}$/.test(path)) {
    return refuse("NAME_INVALID", "path has an empty or dot segment");
  }

  const split = splitAtVersion(path);
  if (split === undefined) return UNKNOWN_PATH;
  const query = parseQuery(rawQuery);
  if ("ok" in query) return query;
  const target = parseTarget(split.rest, query);
  if ("ok" in target) return target;
  return { ok: true, prefix: split.prefix, ns: query.ns, target };
}

/**
 * The inverse of {@link parseDistributionPath}, in the client's own spelling: with what it wrote
 * before `/v2/` and its `?ns=`. For `Link` headers.
 */
export function formatDistributionPath(path: DistributionPath): string {
  const { target } = path;
  const query: string[] = [];
  const add = (key: string, value: string | number | undefined): void => {
    if (value !== undefined) query.push(`${key}=${encodeURIComponent(value)}`);
  };
  if (target.kind === "tags" || target.kind === "catalog") {
    add("n", target.n);
    add("last", target.last);
  }
  if (target.kind === "referrers") {
    for (const type of target.artifactTypes) add("artifactType", type);
  }
  add("ns", path.ns);
  const prefix = path.prefix === undefined ? "" : `/${path.prefix}`;
  const text = `${prefix}/v2/${formatTarget(target)}`;
  return query.length === 0 ? text : `${text}?${query.join("&")}`;
}

function formatTarget(target: DistributionTarget): string {
  switch (target.kind) {
    case "ping":
      return "";
    case "catalog":
      return "_catalog";
    case "tags":
      return `${target.repository}/tags/list`;
    case "manifest":
      return `${target.repository}/manifests/${referenceText(target.reference)}`;
    case "blob":
      return `${target.repository}/blobs/${target.digest}`;
    case "referrers":
      return `${target.repository}/referrers/${target.digest}`;
    case "upload":
      break;
  }
  return `${target.repository}/blobs/uploads/`;
}

/** No control character, no space, nothing beyond ASCII, and no backslash, which some take for a slash. */
const VISIBLE_ASCII = /^[!-[\]-~]*$/;

const UNKNOWN_PATH: PathRefusal = {
  ok: false,
  code: "UNSUPPORTED",
  status: 404,
  detail: "not a path of the distribution API",
};

function refuse(code: RegistryErrorCode, detail: string): PathRefusal {
  return { ok: false, code, detail };
}

/** The first `v2` decides: a repository may have a component of that name, an upstream has not. */
function splitAtVersion(
  path: string,
): { prefix: string | undefined; rest: string } | undefined {
  const at = path.indexOf("/v2/");
  if (at === -1) {
    if (!path.endsWith("/v2")) return undefined;
    const prefix = path.slice(1, -"/v2".length);
    return { prefix: prefix === "" ? undefined : prefix, rest: "" };
  }
  return {
    prefix: at === 0 ? undefined : path.slice(1, at),
    rest: path.slice(at + "/v2/".length),
  };
}

/** Repositories may be named like the API's own words, so the path is read from its end. */
function parseTarget(
  rest: string,
  query: Query,
): DistributionTarget | PathRefusal {
  if (rest === "") return { kind: "ping" };
  if (rest === "_catalog") return parsePage({ kind: "catalog" }, query);

  const segments = rest.split("/");
  const last = segments.at(-1) ?? "";
  const verb = segments.at(-2) ?? "";
  const isUploadSession = verb === "uploads" && segments.at(-3) === "blobs";
  const repository = segments.slice(0, isUploadSession ? -3 : -2).join("/");
  const named = <T>(make: () => T): T | PathRefusal =>
    isSpelledName(repository) || isNameAfterPort(repository)
      ? make()
      : refuse("NAME_INVALID", "repository name breaks the grammar");

  if (isUploadSession || (verb === "blobs" && last === "uploads")) {
    return named(() => ({ kind: "upload", repository }));
  }
  switch (verb) {
    case "tags":
      if (last !== "list") return UNKNOWN_PATH;
      return named(() => parsePage({ kind: "tags", repository }, query));
    case "manifests":
      return named(() => {
        const reference = parseManifestReference(last);
        if ("ok" in reference) return reference;
        return { kind: "manifest", repository, reference };
      });
    case "blobs":
      return named(() => {
        const digest = parseDigest(last);
        if (digest === undefined) return INVALID_DIGEST;
        return { kind: "blob", repository, digest };
      });
    case "referrers":
      return named(() => {
        const digest = parseDigest(last);
        if (digest === undefined) return INVALID_DIGEST;
        const artifactTypes = parseArtifactTypes(query);
        return { kind: "referrers", repository, digest, artifactTypes };
      });
    default:
      return UNKNOWN_PATH;
  }
}

const INVALID_DIGEST = refuse(
  "DIGEST_INVALID",
  "digest must be sha256 or sha512 with lower-case digits",
);

/** A reader asks for what cannot exist, which is 404 as for any other absent manifest; a writer made a mistake. */
function parseManifestReference(text: string): Reference | PathRefusal {
  const onRead = "MANIFEST_UNKNOWN";
  if (text.includes(":")) {
    const digest = parseDigest(text);
    return digest === undefined
      ? { ...INVALID_DIGEST, onRead }
      : { kind: "digest", digest };
  }
  const tag = parseTag(text);
  return tag === undefined
    ? { ...refuse("TAG_INVALID", "tag breaks the grammar"), onRead }
    : { kind: "tag", tag };
}

/** The parameters that mean something here, each with its values in order. */
interface Query {
  readonly ns: string | undefined;
  readonly n: readonly string[];
  readonly last: readonly string[];
  readonly artifactType: readonly string[];
}

/** A plus stays a plus: no value here has a space, and media types are often sent with their `+json` as it is. */
function parseQuery(rawQuery: string): Query | PathRefusal {
  const ns: string[] = [];
  const lists = {
    n: [] as string[],
    last: [] as string[],
    artifactType: [] as string[],
  };
  for (const pair of rawQuery.split("&")) {
    const equalsAt = pair.indexOf("=");
    const key = decode(equalsAt === -1 ? pair : pair.slice(0, equalsAt));
    const value = decode(equalsAt === -1 ? "" : pair.slice(equalsAt + 1));
    if (key === undefined || value === undefined) {
      return refuse("NAME_INVALID", "query is not percent-encoded UTF-8");
    }
    if (key === "ns") ns.push(value);
    // Some servers read `ns[]=` as `ns`; here it is one more way to give it twice.
    else if (key.startsWith("ns[")) ns.push(value, value);
    else if (key === "n") lists.n.push(value);
    else if (key === "last") lists.last.push(value);
    else if (key === "artifactType") lists.artifactType.push(value);
  }
  return ns.length > 1
    ? refuse("NAME_UNKNOWN", "ns was given more than once")
    : { ns: ns[0], ...lists };
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function parsePage<T extends object>(
  target: T,
  query: Query,
): (T & Page) | PathRefusal {
  const [n, secondN] = query.n;
  const isValid =
    secondN === undefined && (n === undefined || /^[0-9]+$/.test(n));
  if (!isValid) {
    return refuse("PAGINATION_NUMBER_INVALID", "n must be one whole number");
  }
  return {
    ...target,
    n: n === undefined ? undefined : Math.min(Number(n), MAX_PAGE_SIZE),
    last: query.last[0]?.slice(0, MAX_LAST_LENGTH).toWellFormed(),
  };
}

/** A filter that is out of bounds is not applied at all: the client filters again where no answer says it was. */
function parseArtifactTypes(query: Query): readonly string[] {
  const types = query.artifactType.filter((type) => type !== "");
  const isInBounds =
    types.length <= MAX_ARTIFACT_TYPES &&
    types.every((type) => type.length <= MAX_ARTIFACT_TYPE_LENGTH);
  return isInBounds ? types : [];
}
