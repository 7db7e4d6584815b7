import type { HostedConfig } from "../config/config.ts";
import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";

/** The repository of a request, and the settings of its registry. */
export interface HostedRepository {
  readonly key: RepositoryKey;
  readonly config: HostedConfig;
}

/** The sender of a request, for the log, the audit and notifications. */
export interface Sender {
  /** The user that logged in. */
  readonly user: string | undefined;
  /** The client's address. */
  readonly client: string | undefined;
  readonly userAgent: string | undefined;
  /** The `Host` of the request. */
  readonly host: string | undefined;
  readonly method: string;
}

/** A change or a pull that notifications report. */
export interface HostedEvent {
  readonly action: "push" | "pull" | "delete" | "mount";
  readonly key: RepositoryKey;
  readonly digest: Digest | undefined;
  readonly tag: Tag | undefined;
  readonly mediaType: string | undefined;
  readonly sizeBytes: number | undefined;
  /** Of a mount: the repository that had the blob. */
  readonly from: RepositoryKey | undefined;
  readonly sender: Sender;
}

/** Receives events; never blocks and never throws. */
export type EventSink = (event: HostedEvent) => void;
