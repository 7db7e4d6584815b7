import { possibleSize } from "../../oci/digest.ts";
import { type ByteRange, isAscending, resolveRanges } from "../../oci/range.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import type { ImageGraph } from "../../storage/graph-index.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { ANSWER_DEADLINE_MS } from "../../wire/deadline.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { withinDeadline } from "../answer-deadline.ts";
import { type FillHead, PartialRefused } from "../fills/fill-download.ts";
import type { Fill, JoinedFill } from "../fills/running-fill.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import {
  BLOB_MEDIA_TYPE,
  type BlobAnswer,
  type BlobDemand,
} from "../../bodies/blob-answer.ts";
import type { Body } from "../../bodies/body.ts";
import { openSideRange } from "./side-range.ts";

/** How far ahead of a fill a range must start to justify a request of its own. */
const SIDE_RANGE_AHEAD_BYTES = 8 * 1024 * 1024;

/** A head that waits for the digest ends this long before {@link ANSWER_DEADLINE_MS}. */
const VERDICT_MARGIN_MS = 500;

/** A client of a fill that waits for its slot is answered this long before {@link ANSWER_DEADLINE_MS}. */
const QUEUE_MARGIN_MS = 1_000;

/** A request that follows a fill. */
export interface FillRequest {
  readonly upstream: MirroredUpstream;
  readonly key: RepositoryKey;
  readonly fill: Fill;
  readonly demand: BlobDemand;
  /** Whether the fill was running before the request. */
  readonly isJoin: boolean;
  /** When the request began; monotonic. */
  readonly startedAtMs: number;
}

type BlobParts = Pick<ImageGraph, "findDescriptor">;

/** Answers requests for blobs from a running fill, or from the upstream if a range is far ahead of it. */
export class FillAnswers {
  readonly #index: BlobParts;
  readonly #clock: Clock;

  constructor(options: { readonly index: BlobParts; readonly clock: Clock }) {
    this.#index = options.index;
    this.#clock = options.clock;
  }

  /**
   * Follows a fill, or fetches a range far ahead of it from the upstream.
   *
   * @returns undefined if the fill ended before it could be joined, or must be started again
   */
  async open(request: FillRequest): Promise<BlobAnswer | undefined> {
    const reader = await request.fill.openReader(
      this.#leftMs(request, QUEUE_MARGIN_MS),
    );
    if (reader === undefined) return undefined;
    try {
      return await this.#answer(request, reader);
    } catch (error) {
      reader.body.close();
      if (error instanceof PartialRefused) return undefined;
      throw error;
    }
  }

  async #answer(request: FillRequest, reader: JoinedFill): Promise<BlobAnswer> {
    const { isJoin } = request;
    const { ranges: specs } = request.demand;
    const { sizeBytes, status } = await this.#headOf(request, reader);
    const whole: Omit<BlobAnswer & { kind: "body" }, "body"> = {
      kind: "body",
      sizeBytes,
      range: undefined,
      mediaType: BLOB_MEDIA_TYPE,
      status: statusOf(reader, isJoin, status),
      ageMs: undefined,
      source: isJoin ? "cache" : "upstream",
    };
    if (specs === undefined || sizeBytes === undefined) {
      return { ...whole, body: reader.body };
    }
    const ranges = resolveRanges(specs, sizeBytes);
    const [range] = ranges;
    if (range === undefined) {
      reader.body.close();
      return { kind: "unsatisfiable", sizeBytes, status: whole.status };
    }
    if (ranges.length > 1) {
      // A fill can be read forwards only.
      return isAscending(ranges)
        ? { ...whole, kind: "parts", sizeBytes, ranges, body: reader.body }
        : { ...whole, body: reader.body };
    }
    const side = await this.#openSideRange(request, reader, range, sizeBytes);
    if (side !== undefined) {
      reader.body.close();
      return {
        ...whole,
        range,
        status: cacheStatus.partial(),
        source: "upstream",
        body: side,
      };
    }
    reader.body.setRange(range.first, range.last);
    return { ...whole, range, body: reader.body };
  }

  /**
   * Returns the head of a fill. If its size is not the one that a manifest of this repository names,
   * waits for the digest, but no longer than a client waits; the fill continues.
   */
  async #headOf(request: FillRequest, reader: JoinedFill): Promise<FillHead> {
    const { upstream, key, fill, demand } = request;
    let isWaitingForDigest = false;
    const known = async (): Promise<FillHead> => {
      const head = await reader.head;
      const descriptor = await this.#index
        .findDescriptor(key, fill.digest)
        .catch(() => undefined);
      const named = possibleSize(fill.digest, descriptor?.sizeBytes);
      const { sizeBytes } = head;
      // A size that only a manifest stored later names is not announced: the fill withholds the
      // tail of its own end, which may be beyond it.
      const isKnown =
        sizeBytes === undefined
          ? demand.isSizeNeeded !== true
          : sizeBytes === (named ?? sizeBytes);
      if (isKnown) return head;
      isWaitingForDigest = true;
      return { ...head, sizeBytes: await reader.verifiedSize() };
    };
    try {
      return await withinDeadline(
        known(),
        upstream.name,
        () => {},
        Math.max(0, this.#leftMs(request, VERDICT_MARGIN_MS)),
      );
    } catch (error) {
      const isLate = error instanceof UpstreamError && error.kind === "timeout";
      if (!isWaitingForDigest || (error instanceof UpstreamError && !isLate))
        throw error;
      throw new UpstreamError(
        "bad-response",
        "the size cannot be announced before the digest is verified",
        { upstream: upstream.name, cause: error },
      );
    }
  }

  async #openSideRange(
    { upstream, key, fill }: FillRequest,
    { receivedBytes }: JoinedFill,
    range: ByteRange,
    sizeBytes: number,
  ): Promise<Body | undefined> {
    const isFarAhead = range.first > receivedBytes + SIDE_RANGE_AHEAD_BYTES;
    const release = isFarAhead ? fill.takeSideRange() : undefined;
    if (release === undefined) return undefined;
    return openSideRange({
      range,
      sizeBytes,
      open: (options) =>
        upstream.client.openBlob(key.repository, fill.digest, options),
      onClose: release,
    });
  }

  /** Time that is left for a request before its client stops waiting, less a margin. */
  #leftMs({ startedAtMs }: FillRequest, marginMs: number): number {
    const elapsedMs = this.#clock.monotonicMs() - startedAtMs;
    return ANSWER_DEADLINE_MS - marginMs - elapsedMs;
  }
}

function statusOf(
  { isStored }: JoinedFill,
  isJoin: boolean,
  status: number,
): CacheStatus {
  if (isJoin) return cacheStatus.collapsed();
  return isStored ? cacheStatus.stored(status) : cacheStatus.notStored(status);
}
