import { bufferSource, type ByteSource } from "./seeded-bytes.ts";
import {
  buildReferrersIndex,
  type TestBlob,
  type TestImage,
  type TestIndex,
  type TestManifest,
} from "./image-builder.ts";
import type { Answer } from "./wire-answer.ts";

/** Kind of a request to a registry; `cdn` is the target of a blob's redirect. */
export type RequestKind =
  | "ping"
  | "manifest"
  | "blob"
  | "tags"
  | "referrers"
  | "catalog"
  | "token"
  | "cdn"
  | "other";

export interface RequestTarget {
  readonly kind: RequestKind;
  readonly path: string;
  readonly query: URLSearchParams;
  /** Undefined if the kind has no repository. */
  readonly repository: string | undefined;
  /** Tag or digest of a manifest; digest of a blob, of a redirect's target or of a subject. */
  readonly reference: string | undefined;
}

const PATHS: readonly (readonly [RequestKind, RegExp])[] = [
  ["ping", /^\/v2\/?$/],
  ["catalog", /^\/v2\/_catalog$/],
  ["manifest", /^\/v2\/(?<repository>.+)\/manifests\/(?<reference>[^/]+)$/],
  ["blob", /^\/v2\/(?<repository>.+)\/blobs\/(?<reference>[^/]+)$/],
  ["referrers", /^\/v2\/(?<repository>.+)\/referrers\/(?<reference>[^/]+)$/],
  ["tags", /^\/v2\/(?<repository>.+)\/tags\/list$/],
  ["token", /^\/token$/],
  ["cdn", /^\/cdn\/(?<reference>[^/]+)$/],
];

export function parseTarget(target: string): RequestTarget {
  const [path = "", query = ""] = target.split("?", 2);
  for (const [kind, pattern] of PATHS) {
    const found = pattern.exec(path);
    if (found === null) continue;
    return {
      kind,
      path,
      query: new URLSearchParams(query),
      repository: found.groups?.["repository"],
      reference: found.groups?.["reference"],
    };
  }
  return {
    kind: "other",
    path,
    query: new URLSearchParams(query),
    repository: undefined,
    reference: undefined,
  };
}

export interface ContentOptions {
  /** False: the referrers API returns 404, and `sha256-…` tags replace it. */
  readonly referrersApi?: boolean;
  /** Maximum number of entries of one page of tags or referrers. */
  readonly pageSize?: number;
  /** Origin of the URL in a `Link`; if absent, the link is a path. */
  readonly linkOrigin?: () => string;
}

interface Repository {
  readonly manifests: Map<string, TestManifest>;
  readonly tags: Map<string, TestManifest>;
  readonly blobs: Map<string, TestBlob>;
}

/** Content of a registry, and the correct responses for it. */
export class ScriptedContent {
  readonly #options: ContentOptions;
  readonly #repositories = new Map<string, Repository>();
  readonly #blobs = new Map<string, TestBlob>();

  constructor(options: ContentOptions) {
    this.#options = options;
  }

  addBlob(repository: string, blob: TestBlob): void {
    this.#repository(repository).blobs.set(blob.digest, blob);
    this.#blobs.set(blob.digest, blob);
  }

  addManifest(repository: string, manifest: TestManifest, tag?: string): void {
    const held = this.#repository(repository);
    held.manifests.set(manifest.digest, manifest);
    if (tag !== undefined) held.tags.set(tag, manifest);
  }

  /** Adds an image with its configuration and layers; another call with the same tag moves the tag. */
  addImage(repository: string, image: TestImage, tag?: string): void {
    for (const blob of image.blobs) this.addBlob(repository, blob);
    this.addManifest(repository, image.manifest, tag);
  }

  /** Adds an index with all its images. */
  addIndex(repository: string, index: TestIndex, tag?: string): void {
    for (const image of index.images) this.addImage(repository, image);
    this.addManifest(repository, index.manifest, tag);
  }

  removeTag(repository: string, tag: string): void {
    this.#repository(repository).tags.delete(tag);
  }

  removeManifest(repository: string, digest: string): void {
    this.#repository(repository).manifests.delete(digest);
  }

  removeBlob(repository: string, digest: string): void {
    this.#repository(repository).blobs.delete(digest);
  }

  answer(
    target: RequestTarget,
    headers: Readonly<Record<string, string>>,
  ): Answer {
    const held = this.#repositories.get(target.repository ?? "");
    const reference = target.reference ?? "";
    switch (target.kind) {
      case "ping":
        return json(200, {});
      case "catalog":
        return json(200, { repositories: [...this.#repositories.keys()] });
      case "manifest":
        return manifestAnswer(
          held?.manifests.get(reference) ??
            held?.tags.get(reference) ??
            this.#referrersTag(held, reference),
        );
      case "blob":
        return blobAnswer(held?.blobs.get(reference), headers);
      case "cdn":
        return blobAnswer(this.#blobs.get(reference), headers);
      case "tags":
        return held === undefined
          ? errorAnswer(404, "NAME_UNKNOWN")
          : this.#tagsAnswer(target, held);
      case "referrers":
        return this.#referrersAnswer(target, held);
      case "token":
      case "other":
        break;
    }
    return errorAnswer(404, "NOT_FOUND");
  }

  #repository(name: string): Repository {
    let repository = this.#repositories.get(name);
    if (repository === undefined) {
      repository = {
        manifests: new Map(),
        tags: new Map(),
        blobs: new Map(),
      };
      this.#repositories.set(name, repository);
    }
    return repository;
  }

  #referrersTag(
    held: Repository | undefined,
    tag: string,
  ): TestManifest | undefined {
    if (held === undefined || this.#options.referrersApi !== false) {
      return undefined;
    }
    const found = referrersOf(held, tag.replace("-", ":"));
    return found.length === 0 ? undefined : buildReferrersIndex(found);
  }

  #referrersAnswer(
    target: RequestTarget,
    held: Repository | undefined,
  ): Answer {
    if (this.#options.referrersApi === false) {
      return errorAnswer(404, "NOT_FOUND");
    }
    const all =
      held === undefined ? [] : referrersOf(held, target.reference ?? "");
    const page = Number(target.query.get("page") ?? 0);
    const size = this.#options.pageSize ?? Infinity;
    const start = page === 0 ? 0 : page * size;
    const index = buildReferrersIndex(all.slice(start, start + size));
    return {
      status: 200,
      headers: {
        "content-type": index.mediaType,
        ...(start + size < all.length
          ? this.#link(`${target.path}?page=${page + 1}`)
          : {}),
      },
      body: bufferSource(index.bytes),
    };
  }

  #tagsAnswer(target: RequestTarget, held: Repository): Answer {
    const last = target.query.get("last");
    const asked = target.query.get("n");
    const size = Math.min(
      this.#options.pageSize ?? Infinity,
      asked === null ? Infinity : Number(asked),
    );
    const after = [...held.tags.keys()]
      .sort()
      .filter((tag) => last === null || tag > last);
    const tags = after.slice(0, size);
    const answer = json(200, { name: target.repository, tags });
    if (tags.length === after.length) return answer;
    return {
      ...answer,
      headers: {
        ...answer.headers,
        ...this.#link(`${target.path}?last=${tags.at(-1)}&n=${size}`),
      },
    };
  }

  #link(path: string): Record<string, string> {
    const origin = this.#options.linkOrigin?.() ?? "";
    return { link: `<${origin}${path}>; rel="next"` };
  }
}

function referrersOf(held: Repository, subject: string): TestManifest[] {
  return [...held.manifests.values()].filter(
    (manifest) => manifest.subject === subject,
  );
}

export function json(status: number, content: unknown): Answer {
  return {
    status,
    headers: { "content-type": "application/json" },
    body: bufferSource(Buffer.from(JSON.stringify(content))),
  };
}

export function errorAnswer(status: number, code: string): Answer {
  return json(status, { errors: [{ code, message: `scripted ${code}` }] });
}

function manifestAnswer(manifest: TestManifest | undefined): Answer {
  if (manifest === undefined) return errorAnswer(404, "MANIFEST_UNKNOWN");
  return {
    status: 200,
    headers: {
      "content-type": manifest.mediaType,
      "docker-content-digest": manifest.digest,
      etag: `"${manifest.digest}"`,
    },
    body: bufferSource(manifest.bytes),
  };
}

function blobAnswer(
  blob: TestBlob | undefined,
  headers: Readonly<Record<string, string>>,
): Answer {
  if (blob === undefined) return errorAnswer(404, "BLOB_UNKNOWN");
  const etag = `"${blob.digest}"`;
  const common = {
    "content-type": "application/octet-stream",
    "docker-content-digest": blob.digest,
    "accept-ranges": "bytes",
    etag,
  };
  const whole: Answer = { status: 200, headers: common, body: blob };
  const range = /^bytes=(\d*)-(\d*)$/.exec(headers["range"] ?? "");
  if (range === null || (headers["if-range"] ?? etag) !== etag) return whole;
  const [, first = "", last = ""] = range;
  if (first === "" && last === "") return whole;
  const start =
    first === "" ? Math.max(0, blob.sizeBytes - Number(last)) : Number(first);
  const end =
    first === "" || last === ""
      ? blob.sizeBytes
      : Math.min(Number(last) + 1, blob.sizeBytes);
  if (start >= end) {
    return {
      ...errorAnswer(416, "RANGE_INVALID"),
      headers: { "content-range": `bytes */${blob.sizeBytes}` },
    };
  }
  return {
    status: 206,
    headers: {
      ...common,
      "content-range": `bytes ${start}-${end - 1}/${blob.sizeBytes}`,
    },
    body: slice(blob, start, end),
    part: { offset: start, wholeBytes: blob.sizeBytes },
  };
}

function slice(source: ByteSource, start: number, end: number): ByteSource {
  return {
    sizeBytes: end - start,
    read: (offset, length) =>
      source.read(
        start + offset,
        Math.max(0, Math.min(length, end - start - offset)),
      ),
  };
}
