import {
  type Digest,
  DIGEST_ALGORITHMS,
  type DigestAlgorithm,
  parseDigest,
} from "./digest.ts";
import type { RegistryErrorCode } from "./errors.ts";
import { parsePathQuery, type PathQuery } from "./path-query.ts";
import {
  isNameAfterPort,
  isSpelledName,
  parseTag,
  type Reference,
  referenceText,
} from "./reference.ts";

/**
 * The target of a request. `repository` is as the client spelled it: an upstream's name may precede
 * it, even one with a port, which only the routes reject.
 */
export type DistributionTarget =
  | { readonly kind: "ping" }
  | ({ readonly kind: "catalog" } & Page)
  | ({ readonly kind: "tags"; readonly repository: string } & Page)
  | {
      readonly kind: "manifest";
      readonly repository: string;
      readonly reference: Reference;
      /** Of a push by digest: values of `tag`, in order and not checked; absent: none. */
      readonly tags?: readonly string[];
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
      /** Artifact types to return; empty: all. Docker 29 sends several. */
      readonly artifactTypes: readonly string[];
      /** The list continues after this digest; absent: from its start. */
      readonly last?: string | undefined;
    }
  | UploadTargetPath;

/** The uploads of a repository, or one of them. */
export interface UploadTargetPath {
  readonly kind: "upload";
  readonly repository: string;
  /** As in the path, not checked; undefined: the request is for all uploads of the repository. */
  readonly session: string | undefined;
  /** The digest of the whole blob. */
  readonly digest: Digest | undefined;
  /** The blob to mount instead of uploading it. */
  readonly mount: Digest | undefined;
  /** The repository to mount from, as the client spelled it and not checked. */
  readonly from: string | undefined;
  /** The value of `digest-algorithm`. */
  readonly algorithm: DigestAlgorithm | undefined;
}

/** The requested part of a list. */
export interface Page {
  /** At most {@link MAX_PAGE_SIZE}; 0 is valid and requests an empty page. */
  readonly n: number | undefined;
  /** The list continues after this entry, in ASCII order. */
  readonly last: string | undefined;
}

/** A parsed path and query. */
export interface DistributionPath {
  /** The path before `/v2/` without its outer slashes; possibly an upstream's name. */
  readonly prefix: string | undefined;
  /** The value of `?ns=`, decoded and not checked. */
  readonly ns: string | undefined;
  readonly target: DistributionTarget;
}

/** Arguments for `RegistryError(code, refusal)`. `detail` never repeats input of the client. */
export interface PathRefusal {
  readonly ok: false;
  readonly code: RegistryErrorCode;
  readonly detail: string;
  readonly status?: number;
  /** Replaces `code` for GET and HEAD, with its own status. */
  readonly onRead?: RegistryErrorCode;
}

export type ParsedPath =
  ({ readonly ok: true } & DistributionPath) | PathRefusal;

/** A client that requests more gets this many and a `Link` to the rest. */
export const MAX_PAGE_SIZE = 1000;

/** Several times the length of two names and a digest. */
const MAX_PATH_LENGTH = 2048;
/** Node rejects longer request heads. */
const MAX_QUERY_LENGTH = 16_384;
/** Longer than any tag or `upstream/repository`, so that a truncated `last` sorts to the same place as the full one. */
const MAX_LAST_LENGTH = 1024;
const MAX_ARTIFACT_TYPES = 32;
const MAX_ARTIFACT_TYPE_LENGTH = 255;

/**
 * Parses the raw target of the request line: a router's decoded one no longer distinguishes `%2F`
 * from `/`. Pure; never throws; linear in the length of the text.
 *
 * Malformed targets are rejected with 400 and the code of the invalid part, `NAME_INVALID` if it is
 * no part in particular. A valid target outside the API gets 404 `UNSUPPORTED`: clients that probe
 * for an extension use the status, and report `NAME_UNKNOWN` as a missing repository.
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
  // An absolute-form target contains a host that a cache must not trust (CVE-2016-4553).
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
  const query = parsePathQuery(rawQuery);
  if (query === undefined) {
    return refuse("NAME_INVALID", "query is not percent-encoded UTF-8");
  }
  if (query.ns.length > 1) {
    return refuse("NAME_UNKNOWN", "ns was given more than once");
  }
  const target = parseTarget(split.rest, query);
  if ("ok" in target) return target;
  return { ok: true, prefix: split.prefix, ns: query.ns[0], target };
}

/**
 * Formats a target in the client's own spelling, with its prefix before `/v2/` and its `?ns=`: the
 * inverse of {@link parseDistributionPath}. Used for `Link` and `Location` headers: a path without scheme
 * and host, because a proxy before this server may have changed both.
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
    add("last", target.last);
  }
  if (target.kind === "manifest") {
    for (const tag of target.tags ?? []) add("tag", tag);
  }
  if (target.kind === "upload") {
    add("digest", target.digest);
    add("mount", target.mount);
    add("from", target.from);
    add("digest-algorithm", target.algorithm);
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
      return `${target.repository}/blobs/uploads/${target.session ?? ""}`;
    default:
      return target satisfies never;
  }
}

/** Printable ASCII without the backslash, which some servers treat as a slash. */
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

/** The first `v2` separates: a repository may have a component of that name, an upstream may not. */
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

/** Repositories may be named like words of the API, so the path is parsed from its end. */
function parseTarget(
  rest: string,
  query: PathQuery,
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
    const session = isUploadSession && last !== "" ? last : undefined;
    return named(() => parseUpload(repository, session, query));
  }
  switch (verb) {
    case "tags":
      if (last !== "list") return UNKNOWN_PATH;
      return named(() => parsePage({ kind: "tags", repository }, query));
    case "manifests":
      return named(() => {
        const reference = parseManifestReference(last);
        if ("ok" in reference) return reference;
        const tags = query.tag.length === 0 ? {} : { tags: query.tag };
        return { kind: "manifest", repository, reference, ...tags };
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
        const [after] = query.last;
        const page = after === undefined ? {} : { last: after };
        return {
          kind: "referrers",
          repository,
          digest,
          artifactTypes,
          ...page,
        };
      });
    default:
      return UNKNOWN_PATH;
  }
}

const INVALID_DIGEST = refuse(
  "DIGEST_INVALID",
  "digest must be sha256 or sha512 with lower-case digits",
);

function parseUpload(
  repository: string,
  session: string | undefined,
  query: PathQuery,
): UploadTargetPath | PathRefusal {
  const { digest, mount, from, algorithm } = query;
  if (Math.max(digest.length, mount.length, algorithm.length) > 1) {
    return refuse("DIGEST_INVALID", "a digest was given more than once");
  }
  const chosen = DIGEST_ALGORITHMS.find((known) => known === algorithm[0]);
  if (algorithm.length > 0 && chosen === undefined) {
    return refuse(
      "DIGEST_INVALID",
      "digest-algorithm must be sha256 or sha512",
    );
  }
  const target: UploadTargetPath = {
    kind: "upload",
    repository,
    session,
    digest: parseDigest(digest[0] ?? ""),
    mount: parseDigest(mount[0] ?? ""),
    // Of several values none is preferred; a mount without one considers every repository.
    from: from.length === 1 ? from[0] : undefined,
    algorithm: chosen,
  };
  const isMalformed =
    (digest.length > 0 && target.digest === undefined) ||
    (mount.length > 0 && target.mount === undefined);
  return isMalformed ? INVALID_DIGEST : target;
}

/** An invalid reference cannot exist, so a read gets 404 as for any absent manifest; a push gets 400. */
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

function parsePage<T extends object>(
  target: T,
  query: PathQuery,
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

/** A filter beyond the limits is not applied: clients filter again unless `OCI-Filters-Applied` is set. */
function parseArtifactTypes(query: PathQuery): readonly string[] {
  const types = query.artifactType.filter((type) => type !== "");
  const isInBounds =
    types.length <= MAX_ARTIFACT_TYPES &&
    types.every((type) => type.length <= MAX_ARTIFACT_TYPE_LENGTH);
  return isInBounds ? types : [];
}
