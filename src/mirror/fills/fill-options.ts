import type { ContentHash } from "../../storage/content-hash.ts";
import type { Digest } from "../../oci/digest.ts";
import type { OpenBlobOptions, UpstreamBlob } from "../../upstream/client.ts";
import type { FillStorage } from "./fill-bytes.ts";

/**
 * - `stored`: verified and published
 * - `passed`: verified, but the storage did not take it
 * - `mismatch`: the bytes are not those of the digest
 * - `broken`: the upstream failed for good; what came is kept for the next fill
 * - `suspended`: ended by us; what came is kept
 * - `refused`: what an earlier fill left is no part of the upstream's blob; it is thrown away
 */
export type FillOutcome =
  "stored" | "passed" | "mismatch" | "broken" | "suspended" | "refused";

export interface FillEnd {
  readonly outcome: FillOutcome;
  readonly sizeBytes: number;
  readonly resumes: number;
  /** Endpoints that gave bytes of this fill. */
  readonly endpoints: ReadonlySet<string>;
  readonly error: unknown;
}

export interface FillOptions {
  readonly digest: Digest;
  /** What a descriptor says; where the upstream says another length, only the digest decides. */
  readonly expectedBytes: number | undefined;
  /** The size was announced to a client already; default false. */
  readonly isSizeAnnounced?: boolean;
  readonly storage: FillStorage;
  /** Endpoints to be asked last, because they gave wrong bytes. */
  readonly avoid: ReadonlySet<string>;
  /** How long to wait for the first headers, queueing included. */
  readonly headersTimeoutMs: number;
  /** Bytes of the newest chunks that are held in memory: a power of two. May change at any time. */
  windowBytes(): number;
  readonly monotonicMs?: () => number;
  open(options: OpenBlobOptions): Promise<UpstreamBlob>;
  /** A hash for bytes that are not stored. */
  createHash(): ContentHash;
  /** Writes the index row; the fill can be joined until it resolves. */
  onVerified(sizeBytes: number, publish: () => Promise<void>): Promise<void>;
  /** Called before a download that hardly moved on is resumed; resolves when it may. */
  giveWay?(signal: AbortSignal): Promise<void>;
  onResume(): void;
  /** The storage failed: from here on the bytes are passed through. */
  onDegraded(error: unknown): void;
}
