import type { ContentHash } from "../../storage/content-hash.ts";
import type { Digest } from "../../oci/digest.ts";
import type { OpenBlobOptions, UpstreamBlob } from "../../upstream/client.ts";
import type { FillStorage } from "./fill-bytes.ts";

/**
 * - `stored`: verified and published
 * - `passed`: verified, but not stored
 * - `mismatch`: the bytes have another digest
 * - `broken`: the upstream failed finally; the received bytes are kept for the next fill
 * - `suspended`: ended by the mirror; the received bytes are kept
 * - `refused`: the upstream does not continue the partial blob of an earlier fill; it is deleted
 */
export type FillOutcome =
  "stored" | "passed" | "mismatch" | "broken" | "suspended" | "refused";

export interface FillEnd {
  readonly outcome: FillOutcome;
  readonly sizeBytes: number;
  readonly resumes: number;
  /** Endpoints that sent bytes of this fill. */
  readonly endpoints: ReadonlySet<string>;
  readonly error: unknown;
}

export interface FillOptions {
  readonly digest: Digest;
  /** The size in a descriptor; if the upstream states another length, only the digest decides. */
  readonly expectedBytes: number | undefined;
  /** A client already got the size; default false. */
  readonly isSizeAnnounced?: boolean;
  readonly storage: FillStorage;
  /** Endpoints that sent wrong bytes; they are tried last. */
  readonly avoid: ReadonlySet<string>;
  /** Time limit of the first headers, including the wait in a queue. */
  readonly headersTimeoutMs: number;
  /** Size of the window in memory: a power of two. May change at any time. */
  windowBytes(): number;
  readonly monotonicMs?: () => number;
  open(options: OpenBlobOptions): Promise<UpstreamBlob>;
  /** Creates a hash for bytes that are not stored. */
  createHash(): ContentHash;
  /** Writes the index row; the fill can be joined until it resolves. */
  onVerified(sizeBytes: number, publish: () => Promise<void>): Promise<void>;
  /** Called before a download that was too slow is resumed; resolves when it may continue. */
  giveWay?(signal: AbortSignal): Promise<void>;
  onResume(): void;
  /** The storage failed: from now on the bytes are passed through. */
  onDegraded(error: unknown): void;
}
