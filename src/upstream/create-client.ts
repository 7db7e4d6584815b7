import { isIP } from "node:net";
import type { UpstreamConfig } from "../config/config.ts";
import { type Digest, parseDigest } from "../oci/digest.ts";
import { parseContentType } from "../oci/media-type.ts";
import {
  type Reference,
  referenceText,
  type RepositoryName,
  type Tag,
} from "../oci/reference.ts";
import type { Clock } from "../telemetry/clock.ts";
import { VERSION } from "../version.ts";
import { AddressPolicy } from "./address-policy.ts";
import { Bandwidth } from "./bandwidth.ts";
import { judgeBlobAnswer, rangeHeader } from "./blob-answers.ts";
import { BlobBody, parseLength, readBody } from "./body.ts";
import {
  MAX_MANIFEST_BYTES,
  type OpenBlobOptions,
  type UpstreamAccount,
  type UpstreamBlob,
  type UpstreamClient,
  type UpstreamManifest,
  type UpstreamManifestHead,
  type UpstreamTags,
} from "./client.ts";
import { createDispatchers, type Dispatchers } from "./dispatcher.ts";
import {
  Endpoint,
  type EndpointOptions,
  type EndpointRequest,
} from "./endpoint.ts";
import { UpstreamError } from "./errors.ts";
import { createExchange, type Exchange } from "./exchange.ts";
import { type Ask, askInOrder, type FailOverRequest } from "./fail-over.ts";
import { ForeignOrigins } from "./foreign-origins.ts";
import {
  isHtml,
  joinReferrers,
  MAX_TAGS_BYTES,
  MAX_TAGS_MS,
  nextPage,
  parseTagsPage,
} from "./lists.ts";
import { NameLookup, type ResolveName } from "./name-lookup.ts";
import type { UpstreamObserver } from "./observer.ts";
import { PageWalk } from "./page-walk.ts";
import { dismiss, type HeldAnswer } from "./retry.ts";
import type { UpstreamStatus } from "./status.ts";
import { statusFault } from "./status-faults.ts";
import { TokenSource } from "./token-source.ts";

export interface UpstreamClientOptions {
  readonly config: UpstreamConfig;
  /** Sent as `Via: 1.1 entrepot-<instanceId>`. */
  readonly instanceId: string;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
  /** True: nothing is ever dialled; every method throws `breaker-open`. */
  readonly offline?: boolean;
  /** In the place of the system's resolver. */
  readonly resolveName?: ResolveName | undefined;
}

/** What a small answer may take in all, however slowly its bytes drip. */
const MAX_SMALL_MS = 60_000;
/** Of a referrers list, all pages together: the index they make has to be one that engines take. */
const MAX_REFERRERS_BYTES = MAX_MANIFEST_BYTES;

/** An upstream over HTTP. Dials nothing before the first request. */
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
    this.#endpoints = config.endpoints.map(
      (url) =>
        new Endpoint({
          url,
          config,
          identity,
          clock,
          observer,
          tokens: this.#tokens,
          ...this.#openWays(url, lookup, foreignOrigins),
        }),
    );
  }

  isDown(): boolean {
    return (
      this.#options.offline === true ||
      this.#endpoints.every((endpoint) => endpoint.isDown)
    );
  }

  isBudgetSpared(): boolean {
    const asked = this.#endpoints.find((endpoint) => !endpoint.isDown);
    return asked?.isBudgetSpared === true;
  }

  status(): UpstreamStatus {
    const isOffline = this.#options.offline === true;
    return {
      name: this.name,
      state: isOffline ? "offline" : this.isDown() ? "down" : "up",
      endpoints: this.#endpoints.map(({ status }) => status),
      credentials: this.accounts(),
      tokensHeld: this.#tokens.heldCount,
    };
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
    return this.#askSmall("manifest", signal, async (ask) => {
      const held = await ask({
        method: "HEAD",
        repository,
        target: `manifests/${referenceText(reference)}`,
      });
      dismiss(held);
      const { header } = held.answer;
      return {
        digest: parseDigest(header("docker-content-digest") ?? ""),
        // Never true of a manifest; some redirectors say so all the same.
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
    return this.#askSmall("manifest", signal, async (ask) => {
      const held = await ask({
        method: "GET",
        repository,
        target: `manifests/${referenceText(reference)}`,
      });
      const bytes = await this.#read(held, MAX_MANIFEST_BYTES);
      const { header } = held.answer;
      const digestHeader = parseDigest(header("docker-content-digest") ?? "");
      if (bytes.length === 0) throw this.#bad(held, "an empty manifest");
      const encoding = header("content-encoding")?.toLowerCase() ?? "identity";
      if (
        encoding !== "identity" &&
        reference.kind === "tag" &&
        digestHeader === undefined
      ) {
        // No digest would show that these are not the bytes that were published.
        throw this.#bad(held, "an encoded manifest");
      }
      const mediaType = parseContentType(header("content-type"));
      const manifest = { bytes, mediaType, digestHeader };
      if (isGenuine(manifest)) return manifest;
      const { origin } = held.answer.url;
      throw new UpstreamError(
        "digest-mismatch",
        `${origin}: other bytes than those of ${digestHeader ?? referenceText(reference)}`,
        { upstream: this.name, origin },
      );
    });
  }

  async headBlob(
    repository: RepositoryName,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<{ readonly sizeBytes: number | undefined }> {
    const told = await this.#askSmall("blob", signal, async (ask) => {
      try {
        const held = await ask({
          method: "HEAD",
          repository,
          target: `blobs/${digest}`,
          isTokenDoubted: false,
        });
        dismiss(held);
        return parseLength(held.answer.header("content-length"));
      } catch (error) {
        // Here, where it is no fault of the endpoint's and nobody is told of one.
        if (isHeadRefused(error)) return undefined;
        throw error;
      }
    });
    if (told !== undefined) return { sizeBytes: told };
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
    return this.#ask(
      { kind: "blob", signal, avoid },
      async (endpoint, permit, own) => {
        const held = await this.#send(endpoint, {
          kind: "blob",
          method: "GET",
          repository,
          target: `blobs/${digest}`,
          range: rangeHeader(range),
          permit,
          signal: own,
        });
        const { answer, release } = held;
        const blob = judgeBlobAnswer(answer, range);
        if (typeof blob === "string") {
          dismiss(held);
          throw this.#bad(held, blob);
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
    return this.#askSmall("tags", signal, async (ask, own) => {
      const deadline = AbortSignal.timeout(MAX_TAGS_MS);
      const tags = new Set<Tag>();
      const query = after === undefined ? "" : `?last=${after}`;
      const pages = new PageWalk(`tags/list${query}`);
      let bytesLeft = MAX_TAGS_BYTES;
      for (;;) {
        try {
          const held = await ask(
            { method: "GET", repository, target: pages.next },
            deadline,
          );
          const page = await this.#read(held, bytesLeft);
          bytesLeft -= page.length;
          const found = parseTagsPage(page);
          if (found === undefined) throw this.#bad(held, "no list of tags");
          for (const tag of found) tags.add(tag);
          pages.advance(nextPage(held.answer));
        } catch (error) {
          const isCut =
            !own.aborted &&
            pages.count > 0 &&
            error instanceof UpstreamError &&
            (deadline.aborted || error.kind === "too-large");
          if (!isCut) throw error;
          return { tags: [...tags], isWhole: false };
        }
        if (pages.isAtEnd) return { tags: [...tags], isWhole: pages.isWhole };
      }
    });
  }

  getReferrers(
    repository: RepositoryName,
    subject: Digest,
    signal: AbortSignal,
  ): Promise<Buffer> {
    return this.#askSmall("referrers", signal, async (ask) => {
      const pages = new PageWalk(`referrers/${subject}`);
      const bodies: Buffer[] = [];
      let bytesLeft = MAX_REFERRERS_BYTES;
      for (;;) {
        const held = await ask({
          method: "GET",
          repository,
          target: pages.next,
        });
        const body = await this.#read(held, bytesLeft);
        bytesLeft -= body.length;
        bodies.push(body);
        pages.advance(nextPage(held.answer));
        if (!pages.isAtEnd) continue;
        // A signature that was cut off would look like one that is not there.
        if (!pages.isWhole) throw this.#bad(held, "referrers without an end");
        const index = joinReferrers(bodies);
        if (index === undefined) throw this.#bad(held, "no image index");
        return index;
      }
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#dispatchers.map((one) => one.close()));
  }

  /** To the endpoint itself, and to wherever it leads; the two share no connection. */
  #openWays(
    endpoint: string,
    lookup: NameLookup,
    foreignOrigins: ForeignOrigins,
  ): Pick<EndpointOptions, "exchange" | "foreignExchange"> {
    const { config, clock, observer } = this.#options;
    const { origin, hostname } = new URL(endpoint);
    const policy = new AddressPolicy(config.redirectHosts);
    const address = hostname.replace(/^\[(.*)\]$/, "$1");
    if (isIP(address) !== 0) policy.noteHome(address);
    const open = (side: "endpoint" | "foreign"): Exchange => {
      const dispatchers = createDispatchers({ config, lookup, policy, side });
      this.#dispatchers.push(dispatchers);
      return createExchange({ config, dispatchers, clock, observer });
    };
    const exchange = open("endpoint");
    const elsewhere = open("foreign");
    return {
      exchange,
      // A realm on the endpoint's own origin is where the endpoint is.
      foreignExchange: foreignOrigins.guard((request) =>
        (request.url.origin === origin ? exchange : elsewhere)(request),
      ),
    };
  }

  async #ask<T>(
    request: FailOverRequest,
    act: Ask<T>["act"],
    discard: Ask<T>["discard"] = () => {},
  ): Promise<T> {
    const { offline, observer } = this.#options;
    if (offline === true || this.#closing.signal.aborted) {
      throw new UpstreamError("breaker-open", "no upstream is dialled", {
        upstream: this.name,
        isLocal: true,
      });
    }
    return askInOrder(
      { upstream: this.name, endpoints: this.#endpoints, observer },
      request,
      { act, discard },
    );
  }

  /** Like #ask, for answers that are read whole: within a bound of their own, and none in HTML. */
  #askSmall<T>(
    kind: EndpointRequest["kind"],
    signal: AbortSignal,
    act: (ask: AskSmall, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.#ask({ kind, signal }, (endpoint, permit, own) => {
      const bound = AbortSignal.timeout(MAX_SMALL_MS);
      return act(async (request, deadline) => {
        const signals = [own, bound];
        if (deadline !== undefined) signals.push(deadline);
        const held = await this.#send(endpoint, {
          ...request,
          kind,
          permit,
          signal: AbortSignal.any(signals),
        });
        const { status } = held.answer;
        if (status === 200 && !isHtml(held.answer)) return held;
        dismiss(held);
        throw this.#bad(held, status === 200 ? "HTML" : `status ${status}`);
      }, own);
    });
  }

  /** @throws UpstreamError for every status but 200 and 206 */
  async #send(
    endpoint: Endpoint,
    request: EndpointRequest,
  ): Promise<HeldAnswer> {
    const held = await endpoint.send(request);
    const fault = statusFault(held.answer, this.name, this.#options.clock);
    if (fault === undefined) return held;
    // Before the slot is free: those who wait for it look at the breaker next.
    endpoint.settle(request.permit, fault);
    dismiss(held);
    // Storage that refuses its own signed URL says nothing of who may pull.
    const isStorages =
      request.kind === "blob" && held.answer.url.origin !== endpoint.origin;
    throw isStorages &&
      (fault.kind === "denied" || fault.kind === "unauthorized")
      ? this.#bad(held, `status ${held.answer.status}`)
      : fault;
  }

  async #read(held: HeldAnswer, maxBytes: number): Promise<Buffer> {
    try {
      return await readBody(held.answer, maxBytes, this.name, (bytes) =>
        this.#options.observer.onReceivedBytes(bytes),
      );
    } finally {
      held.release();
    }
  }

  #bad({ answer }: HeldAnswer, what: string): UpstreamError {
    const { origin } = answer.url;
    return new UpstreamError("bad-response", `${origin}: ${what}`, {
      upstream: this.name,
      origin,
      status: answer.status,
    });
  }
}

type AskSmall = (
  request: Pick<
    EndpointRequest,
    "method" | "repository" | "target" | "isTokenDoubted"
  >,
  deadline?: AbortSignal,
) => Promise<HeldAnswer>;

/** ECR Public answers 401, some CDNs 403 to a HEAD whose GET they signed, others 400, 405 or 501. */
function isHeadRefused(error: unknown): boolean {
  return (
    error instanceof UpstreamError &&
    [400, 401, 403, 405, 501].includes(error.status ?? 0)
  );
}
