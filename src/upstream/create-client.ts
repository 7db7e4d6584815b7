import type { UpstreamConfig } from "../config/config.ts";
import { type Digest, parseDigest, possibleSize } from "../oci/digest.ts";
import { parseContentType } from "../oci/media-type.ts";
import {
  type Reference,
  referenceText,
  type RepositoryName,
  type Tag,
} from "../oci/reference.ts";
import type { Clock } from "../telemetry/clock.ts";
import { VERSION } from "../telemetry/version.ts";
import { Asker } from "./asker.ts";
import { Bandwidth } from "../wire/bandwidth.ts";
import { judgeBlobAnswer, rangeHeader } from "./blob-answers.ts";
import { BlobBody, parseLength } from "../wire/body.ts";
import {
  type OpenBlobOptions,
  type UpstreamBlob,
  type UpstreamClient,
  type UpstreamManifest,
  type UpstreamManifestHead,
  type UpstreamTags,
} from "./client.ts";
import type { Dispatchers } from "../wire/dispatcher.ts";
import { Endpoint } from "./endpoint.ts";
import type { ProbeSchedule } from "./endpoint-probe.ts";
import { openWays } from "./endpoint-ways.ts";
import { UpstreamError } from "../wire/errors.ts";
import { ForeignOrigins } from "./foreign-origins.ts";
import { NameLookup, type ResolveName } from "../wire/name-lookup.ts";
import type { UpstreamObserver } from "../wire/observer.ts";
import { readReferrers, readTags } from "./read-lists.ts";
import { dismiss } from "../wire/retry.ts";
import type { UpstreamAccount, UpstreamStatus } from "./status.ts";
import { TokenSource } from "./auth/token-source.ts";
import { MAX_MANIFEST_BYTES } from "../oci/manifest.ts";

export interface UpstreamClientOptions {
  readonly config: UpstreamConfig;
  /** Sent as `Via: 1.1 entrepot-<instanceId>`. */
  readonly instanceId: string;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
  /** True: nothing is dialled; every method throws `breaker-open`. May change at any time. */
  readonly isOffline?: () => boolean;
  /** Schedules background probes of failed endpoints; absent: by timers. */
  readonly probeSchedule?: ProbeSchedule | undefined;
  /** Replaces the system's resolver. */
  readonly resolveName?: ResolveName | undefined;
}

/** Creates the client of an upstream over HTTP. It opens no connection before the first request. */
export function createUpstreamClient(
  options: UpstreamClientOptions,
): UpstreamClient {
  return new HttpUpstreamClient(options);
}

class HttpUpstreamClient implements UpstreamClient {
  readonly name: string;
  readonly hasCredentials: boolean;
  readonly #options: UpstreamClientOptions;
  readonly #dispatchers: Dispatchers[] = [];
  readonly #endpoints: readonly Endpoint[];
  readonly #bandwidth: Bandwidth;
  readonly #tokens: TokenSource;
  readonly #asker: Asker;
  readonly #closing = new AbortController();

  constructor(options: UpstreamClientOptions) {
    const { config, clock, observer, instanceId } = options;
    const identity = { instanceId, version: VERSION };
    this.#options = options;
    this.name = config.name;
    this.hasCredentials = config.credentials.length > 0;
    this.#bandwidth = new Bandwidth(config.bandwidthBytesPerSecond);
    const lookup = new NameLookup({
      upstream: config.name,
      clock,
      resolve: options.resolveName,
    });
    const foreignOrigins = new ForeignOrigins(config.name, clock);
    this.#tokens = new TokenSource({
      upstream: config.name,
      identity,
      clock,
      observer,
      closing: this.#closing.signal,
    });
    const isClosed = (): boolean =>
      options.isOffline?.() === true || this.#closing.signal.aborted;
    this.#endpoints = config.endpoints.map(
      (url) =>
        new Endpoint({
          url,
          config,
          identity,
          clock,
          observer,
          tokens: this.#tokens,
          isClosed,
          closing: this.#closing.signal,
          probeSchedule: options.probeSchedule,
          ...openWays(url, {
            config,
            clock,
            observer,
            lookup,
            foreignOrigins,
            onOpened: (dispatchers) => this.#dispatchers.push(dispatchers),
          }),
        }),
    );
    this.#asker = new Asker({
      upstream: config.name,
      endpoints: this.#endpoints,
      clock,
      observer,
      isClosed,
    });
  }

  isDown(): boolean {
    return (
      this.#options.isOffline?.() === true ||
      this.#endpoints.every((endpoint) => endpoint.isDown)
    );
  }

  isIdle(): boolean {
    return this.#endpoints.every((endpoint) => endpoint.isIdle);
  }

  isBudgetSpared(): boolean {
    return this.#nextEndpoint()?.isBudgetSpared === true;
  }

  isBudgetHalfUsed(): boolean {
    return this.#nextEndpoint()?.isBudgetHalfUsed === true;
  }

  /** Returns the endpoint that the next request is sent to. */
  #nextEndpoint(): Endpoint | undefined {
    return this.#endpoints.find((endpoint) => !endpoint.isDown);
  }

  status(): UpstreamStatus {
    const isOffline = this.#options.isOffline?.() === true;
    return {
      name: this.name,
      state: isOffline ? "offline" : this.#state(),
      endpoints: this.#endpoints.map(({ status }) => status),
      credentials: this.accounts(),
      tokensHeld: this.#tokens.heldCount,
    };
  }

  #state(): "up" | "down" | "unauthorized" {
    if (this.isDown()) return "down";
    return this.#endpoints.every((one) => one.isDown || one.isUnauthorized)
      ? "unauthorized"
      : "up";
  }

  accounts(): readonly UpstreamAccount[] {
    return this.#endpoints.flatMap(({ url, credentials }) =>
      credentials.map((state) => ({ ...state, endpoint: url })),
    );
  }

  headManifest(
    repository: RepositoryName,
    reference: Reference,
    signal: AbortSignal,
  ): Promise<UpstreamManifestHead> {
    const target = `manifests/${referenceText(reference)}`;
    const demand = {
      kind: "manifest",
      resource: `${repository}/${target}`,
      isHead: true,
    } as const;
    return this.#asker.askSmall(demand, signal, async (send) => {
      const held = await send({ method: "HEAD", repository, target });
      dismiss(held);
      const { header } = held.answer;
      return {
        digest: parseDigest(header("docker-content-digest") ?? ""),
        // Some redirectors answer 0, which is never the size of a manifest.
        sizeBytes: parseLength(header("content-length")) || undefined,
        mediaType: parseContentType(header("content-type")),
      };
    });
  }

  getManifest(
    repository: RepositoryName,
    reference: Reference,
    signal: AbortSignal,
    isGenuine: (manifest: UpstreamManifest) => boolean = () => true,
  ): Promise<UpstreamManifest> {
    const target = `manifests/${referenceText(reference)}`;
    const demand = {
      kind: "manifest",
      resource: `${repository}/${target}`,
    } as const;
    return this.#asker.askSmall(demand, signal, async (send) => {
      const held = await send({ method: "GET", repository, target });
      const bytes = await this.#asker.read(held, MAX_MANIFEST_BYTES);
      const { header } = held.answer;
      const digestHeader = parseDigest(header("docker-content-digest") ?? "");
      if (bytes.length === 0)
        throw this.#asker.badAnswer(held, "got an empty manifest");
      const encoding = header("content-encoding")?.toLowerCase() ?? "identity";
      if (
        encoding !== "identity" &&
        reference.kind === "tag" &&
        digestHeader === undefined
      ) {
        // No digest would show that these are not the published bytes.
        throw this.#asker.badAnswer(held, "got an encoded manifest");
      }
      const mediaType = parseContentType(header("content-type"));
      const manifest = { bytes, mediaType, digestHeader };
      if (isGenuine(manifest)) return manifest;
      const { origin } = held.answer.url;
      throw new UpstreamError(
        "digest-mismatch",
        `${origin}: got other bytes; expected those of ${digestHeader ?? referenceText(reference)}`,
        { upstream: this.name, origin },
      );
    });
  }

  async headBlob(
    repository: RepositoryName,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<{ readonly sizeBytes: number | undefined }> {
    const target = `blobs/${digest}`;
    const demand = {
      kind: "blob",
      resource: `${repository}/${target}`,
      isHead: true,
    } as const;
    const length = await this.#asker.askSmall(demand, signal, async (send) => {
      try {
        const held = await send({
          method: "HEAD",
          repository,
          target,
          isTokenDoubted: false,
        });
        dismiss(held);
        const stated = parseLength(held.answer.header("content-length"));
        // Some redirectors answer 0 to every HEAD; a GET shows the real length.
        return stated === 0 ? possibleSize(digest, stated) : stated;
      } catch (error) {
        // Caught here, so that it is neither counted nor logged as a failure of the endpoint.
        if (isHeadRefused(error)) return undefined;
        throw error;
      }
    });
    if (length !== undefined) return { sizeBytes: length };
    const { body, sizeBytes } = await this.openBlob(repository, digest, {
      signal,
    });
    body.destroy();
    return { sizeBytes };
  }

  openBlob(
    repository: RepositoryName,
    digest: Digest,
    { offset = 0, lastByte, avoid, signal }: OpenBlobOptions,
  ): Promise<UpstreamBlob> {
    const range = { offset, lastByte };
    const target = `blobs/${digest}`;
    const resource = `${repository}/${target}`;
    return this.#asker.ask(
      { kind: "blob", resource, signal, avoid },
      async (endpoint, permit, own) => {
        const held = await this.#asker.send(endpoint, {
          kind: "blob",
          method: "GET",
          repository,
          target,
          range: rangeHeader(range),
          permit,
          signal: own,
        });
        const { answer, release } = held;
        const blob = judgeBlobAnswer(answer, digest, range);
        if (typeof blob === "string") {
          dismiss(held);
          throw this.#asker.badAnswer(held, blob);
        }
        const body = new BlobBody({
          source: answer.body,
          place: { upstream: this.name, origin: answer.url.origin },
          expectedBytes: blob.expectedBytes,
          onBytes: (bytes) => this.#options.observer.onReceivedBytes(bytes),
          bandwidth: this.#bandwidth,
          onClose: release,
        });
        const { status, sizeBytes } = blob;
        return {
          status,
          offset: blob.offset,
          sizeBytes,
          body,
          pacedMs: () => body.pacedMs,
          endpoint: endpoint.url,
        };
      },
      ({ body }) => body.destroy(),
    );
  }

  listTags(
    repository: RepositoryName,
    signal: AbortSignal,
    after?: Tag,
  ): Promise<UpstreamTags> {
    const resource = `${repository}/tags/list ${after ?? ""}`;
    return this.#asker.askSmall(
      { kind: "tags", resource },
      signal,
      (send, own) =>
        readTags(this.#asker, send, { repository, after, signal: own }),
    );
  }

  getReferrers(
    repository: RepositoryName,
    subject: Digest,
    signal: AbortSignal,
  ): Promise<Buffer> {
    const resource = `${repository}/referrers/${subject}`;
    return this.#asker.askSmall(
      { kind: "referrers", resource },
      signal,
      (send) => readReferrers(this.#asker, send, { repository, subject }),
    );
  }

  retire(): void {
    for (const endpoint of this.#endpoints) endpoint.retire();
  }

  async close(): Promise<void> {
    this.retire();
    this.#closing.abort();
    await Promise.all(this.#dispatchers.map((one) => one.close()));
  }
}

/** ECR Public answers 401 to a HEAD, some CDNs 403 if only the GET was signed, others 400, 405, 406 or 5xx. */
function isHeadRefused(error: unknown): boolean {
  if (!(error instanceof UpstreamError) || error.isLocal) return false;
  const { status = 0 } = error;
  return [400, 401, 403, 405, 406].includes(status) || status >= 500;
}
