import type { ChunkRange } from "../../hosted/uploads/receive-body.ts";
import { UploadRefusal } from "../../hosted/uploads/upload-refusal.ts";
import type {
  UploadProgress,
  UploadRequest,
  Uploads,
} from "../../hosted/uploads/uploads.ts";
import type { Digest } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import {
  formatDistributionPath,
  type UploadTargetPath,
} from "../../oci/path.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import {
  repositoryKey,
  type RoutedHosted,
  type Routes,
} from "../../routing/routes.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { addNamespace, type Call, hostedOf, senderOf } from "./call.ts";
import { MethodRefusal } from "./refusals.ts";
import { RequestBody } from "./request-body.ts";
import { type Head, sendHead } from "./send.ts";

export interface UploadRoutesOptions {
  readonly uploads: Uploads;
  /** Whether the configuration of a mirrored repository allows this blob to be pulled. */
  readonly mayMirror: (key: RepositoryKey, digest: Digest) => boolean;
  readonly clock: Pick<Clock, "monotonicMs">;
}

/** Clients may send chunks of any size. */
const CHUNK_MIN_LENGTH = 1;

/**
 * Answers a request for the uploads of a hosted repository.
 *
 * @throws RegistryError, MethodRefusal
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
 */
export async function answerUpload(
  options: UploadRoutesOptions,
  call: Call,
  routed: RoutedHosted,
  target: UploadTargetPath,
): Promise<void> {
  const { request, response } = call;
  const { session } = target;
  try {
    if (session === undefined) {
      if (request.method !== "POST") throw new MethodRefusal("POST");
      await begin(options, call, routed, target);
    } else {
      await continueUpload(options, call, routed, target, session);
    }
  } catch (error) {
    if (!(error instanceof UploadRefusal)) throw error;
    const { writtenBytes } = error;
    if (writtenBytes !== undefined && session !== undefined) {
      const headers = progressHead(call, target, { id: session, writtenBytes });
      for (let i = 0; i < headers.length; i += 2) {
        response.setHeader(String(headers[i]), String(headers[i + 1]));
      }
    }
    throw error.error;
  }
}

async function continueUpload(
  { uploads, clock }: UploadRoutesOptions,
  call: Call,
  routed: RoutedHosted,
  target: UploadTargetPath,
  session: string,
): Promise<void> {
  const { response } = call;
  switch (call.request.method) {
    case "PATCH": {
      const progress = await withBody(call, routed, clock, (request) =>
        uploads.append(session, request),
      );
      sendProgress(call, routed, target, 202, progress);
      return;
    }
    case "PUT": {
      const { digest } = target;
      if (digest === undefined) {
        throw new RegistryError("DIGEST_INVALID", {
          detail:
            "got no digest; expected the digest of the blob as a query parameter",
        });
      }
      await withBody(call, routed, clock, (request) =>
        uploads.finish(session, request, digest),
      );
      sendStored(call, routed, target, digest);
      return;
    }
    case "GET":
    case "HEAD": {
      const progress = await uploads.status(hostedOf(routed), session);
      sendProgress(call, routed, target, 204, progress);
      return;
    }
    case "DELETE": {
      await uploads.cancel(hostedOf(routed), session);
      const head = emptyHead(routed);
      head.push("Docker-Upload-UUID", session);
      sendHead(response, 204, head);
      return;
    }
    case undefined:
    default:
      throw new MethodRefusal("GET, HEAD, PATCH, PUT, DELETE");
  }
}

async function begin(
  options: UploadRoutesOptions,
  call: Call,
  routed: RoutedHosted,
  target: UploadTargetPath,
): Promise<void> {
  const { uploads, clock } = options;
  const { digest, mount, algorithm = "sha256" } = target;
  const mounting =
    mount === undefined
      ? undefined
      : {
          digest: mount,
          from: sourcesOf(call, routed, target),
          mayPull: (key: RepositoryKey) => mayPull(options, call, key, mount),
        };
  const started = await withBody(call, routed, clock, (request) =>
    uploads.begin(request, { digest, algorithm, mount: mounting }),
  );
  if (started.kind === "stored") {
    sendStored(call, routed, target, started.digest);
  } else {
    sendProgress(call, routed, target, 202, started);
  }
}

/** Runs work with the body of the request. @throws RegistryError if its range is malformed */
async function withBody<T>(
  call: Call,
  routed: RoutedHosted,
  clock: Pick<Clock, "monotonicMs">,
  work: (request: UploadRequest) => Promise<T>,
): Promise<T> {
  const { request, response } = call;
  const range = parseChunkRange(request.headers["content-range"]);
  const body = new RequestBody(request, response, () => clock.monotonicMs());
  try {
    return await work({
      repository: hostedOf(routed),
      sender: senderOf(call),
      body,
      range,
    });
  } finally {
    body.release();
  }
}

/** The form of the specification, and that of RFC 9110 with its unit and size. */
const CHUNK_RANGE = /^(?:bytes[ =])?([0-9]{1,15})-([0-9]{1,15})(?:\/[0-9*]+)?$/;

/** @throws RegistryError */
function parseChunkRange(text: string | undefined): ChunkRange | undefined {
  if (text === undefined) return undefined;
  const [, first, last] = CHUNK_RANGE.exec(text) ?? [];
  if (first === undefined || last === undefined) {
    throw new RegistryError("BLOB_UPLOAD_INVALID", {
      detail:
        "got a malformed Content-Range; expected two positions, such as 0-1023",
    });
  }
  return { first: Number(first), last: Number(last) };
}

/**
 * Returns the repositories that `from` may mean: as a request with the same hints would be routed
 * and, because a client does not repeat a path before `/v2/` or `ns` in a name, without them.
 *
 * @returns undefined if the client names none
 */
function sourcesOf(
  { requested, request, routes }: Call,
  routed: RoutedHosted,
  { from }: UploadTargetPath,
): readonly RepositoryKey[] | undefined {
  if (from === undefined || from === "") return undefined;
  const { prefix, ns } = requested.path;
  const { host } = request.headers;
  const without = { prefix: undefined, ns: undefined, host };
  const found: RepositoryKey[] = [];
  for (const hints of [{ prefix, ns, host }, without]) {
    const source = routes.routeRepository(hints, from);
    if (source.ok) found.push(repositoryKey(source));
  }
  // A client that selects the registry by a prefix or a host gives only the repository's name.
  const own = routes.routeRepository(without, `${routed.hosted.name}/${from}`);
  if (own.ok) found.push(repositoryKey(own));
  return found;
}

function mayPull(
  { mayMirror }: UploadRoutesOptions,
  { admission, routes }: Call,
  key: RepositoryKey,
  digest: Digest,
): boolean {
  return (
    admission.may("pull", `${key.upstream}/${key.repository}`) &&
    isConfigured(routes, key.upstream, () => mayMirror(key, digest))
  );
}

/** Returns whether the registry is in the routes of the request: others are not mounted from. */
function isConfigured(
  routes: Routes,
  registry: string,
  mayMirror: () => boolean,
): boolean {
  if (routes.findHosted(registry) !== undefined) return true;
  return routes.findUpstream(registry) !== undefined && mayMirror();
}

// --- responses -----------------------------------------------------------------------------------

/** The headers of a response without a body. */
function emptyHead(routed: RoutedHosted): Head {
  const head: Head = ["Docker-Distribution-API-Version", "registry/2.0"];
  addNamespace(head, routed);
  return head;
}

/** @see formatDistributionPath */
function progressHead(
  { requested }: Call,
  { repository }: UploadTargetPath,
  { id, writtenBytes }: UploadProgress,
): Head {
  const location = formatDistributionPath({
    ...requested.path,
    target: { ...NO_PARAMETERS, repository, session: id },
  });
  return [
    "Location",
    location,
    // As Distribution states an empty upload: clients do not parse `0--1`.
    "Range",
    `0-${Math.max(0, writtenBytes - 1)}`,
    "Docker-Upload-UUID",
    id,
  ];
}

const NO_PARAMETERS = {
  kind: "upload",
  digest: undefined,
  mount: undefined,
  from: undefined,
  algorithm: undefined,
} as const;

function sendProgress(
  call: Call,
  routed: RoutedHosted,
  target: UploadTargetPath,
  status: 202 | 204,
  progress: UploadProgress,
): void {
  const head = emptyHead(routed);
  head.push(...progressHead(call, target, progress));
  if (status === 202) head.push("Content-Length", 0);
  if (target.session === undefined) {
    head.push("OCI-Chunk-Min-Length", CHUNK_MIN_LENGTH);
  }
  sendHead(call.response, status, head);
}

function sendStored(
  { requested, response }: Call,
  routed: RoutedHosted,
  { repository }: UploadTargetPath,
  digest: Digest,
): void {
  const head = emptyHead(routed);
  const location = formatDistributionPath({
    ...requested.path,
    target: { kind: "blob", repository, digest },
  });
  head.push("Location", location, "Docker-Content-Digest", digest);
  head.push("Content-Length", 0);
  sendHead(response, 201, head);
}
