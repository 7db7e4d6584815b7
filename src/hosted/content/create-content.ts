import type { StoredBlobs } from "../../bodies/stored-blobs.ts";
import type { StoredReads } from "../../bodies/stored-reads.ts";
import type { Room } from "../../retention/room.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { Reference } from "../../oci/reference.ts";
import type { BlobLinks, BlobRecords } from "../../storage/blob-index.ts";
import type {
  HostedBlobs,
  HostedManifests,
} from "../../storage/hosted-index.ts";
import type { HotManifests } from "../../storage/hot-manifests.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import type { TrackedBlobStore } from "../../storage/tracked-blob-store.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { EventSink, HostedRepository, Sender } from "../hosted.ts";
import { immutableTags } from "../immutable-tags.ts";
import { explainStorageFailure } from "../storage-failures.ts";
import { BlobReads } from "./blob-reads.ts";
import { ContentLists } from "./content-lists.ts";
import { refuseImmutable } from "./content-refusals.ts";
import type { HostedContent } from "./content.ts";
import { ManifestReads } from "./manifest-reads.ts";
import { ManifestWrites } from "./manifest-writes.ts";

export interface ContentOptions {
  readonly store: TrackedBlobStore;
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "recallLinkedBlob"> &
    Pick<BlobRecords, "getBlob"> &
    HostedBlobs &
    HostedManifests &
    TagIndex &
    UseIndex;
  readonly hot: HotManifests;
  readonly stored: Pick<StoredBlobs, "open">;
  readonly reads: Pick<StoredReads, "noteReceived">;
  /** Returns the bytes of a registry's open uploads, which count towards its quota. */
  readonly reservedBytes: (registry: string) => number;
  /** Absent: not limited before the disk is full. */
  readonly room?: Pick<Room, "reserve"> | undefined;
  readonly events: EventSink;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Creates the content of hosted repositories, whose methods map storage failures to errors for clients. */
export function createContent(options: ContentOptions): HostedContent {
  const manifests = new ManifestReads(options);
  const blobs = new BlobReads(options);
  const lists = new ContentLists(options);
  const writes = new ManifestWrites(options);
  const { index, events } = options;
  return {
    recallManifest: ({ key }, reference, isHead) =>
      manifests.recall(key, reference, isHead),
    getManifest: ({ key }, reference, isHead) =>
      answer(() => manifests.get(key, reference, isHead)),
    statBlob: ({ key }, digest, isClaimed) =>
      answer(() => blobs.stat(key, digest, isClaimed)),
    openBlob: ({ key }, digest, demand) =>
      answer(() => blobs.open(key, digest, demand)),
    listTags: ({ key }, page) => answer(() => lists.tags(key, page)),
    listReferrers: ({ key }, subject, artifactTypes, last) =>
      answer(() => lists.referrers(key, subject, artifactTypes, last)),
    putManifest: (repository, pushed, sender) =>
      answer(async () => {
        const written = await writes.put(repository, pushed);
        const { digest, tags, mediaType, sizeBytes } = written;
        for (const tag of tags.length === 0 ? [undefined] : tags) {
          const described = { digest, tag, mediaType, sizeBytes };
          events(eventOf("push", repository, described, sender));
        }
        return written;
      }),
    deleteManifest: (repository, reference, sender) =>
      answer(async () => {
        const deleted = await deleteReference(index, repository, reference);
        events(eventOf("delete", repository, deleted, sender));
      }),
    deleteBlob: (repository, digest, sender) =>
      answer(async () => {
        const { key } = repository;
        const deletion = await index.unlinkHostedBlob(
          key,
          digest,
          immutableTags(repository),
        );
        if (deletion.kind === "immutable") throw refuseImmutable(deletion);
        if (deletion.kind === "absent") throw new RegistryError("BLOB_UNKNOWN");
        events(eventOf("delete", repository, { digest }, sender));
      }),
  };
}

async function answer<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw explainStorageFailure(error);
  }
}

async function deleteReference(
  index: Pick<HostedManifests, "deleteHostedTag" | "deleteHostedManifest">,
  repository: HostedRepository,
  reference: Reference,
): Promise<Described> {
  const { key } = repository;
  const isImmutable = immutableTags(repository);
  const deletion =
    reference.kind === "tag"
      ? await index.deleteHostedTag(key, reference.tag, isImmutable)
      : await index.deleteHostedManifest(key, reference.digest, isImmutable);
  if (deletion.kind === "immutable") throw refuseImmutable(deletion);
  if (deletion.kind === "absent") throw new RegistryError("MANIFEST_UNKNOWN");
  return reference.kind === "tag"
    ? { tag: reference.tag }
    : { digest: reference.digest };
}

type Described = Partial<
  Pick<Parameters<EventSink>[0], "digest" | "tag" | "mediaType" | "sizeBytes">
>;

function eventOf(
  action: "push" | "delete",
  { key }: HostedRepository,
  { digest, tag, mediaType, sizeBytes }: Described,
  sender: Sender,
): Parameters<EventSink>[0] {
  return {
    action,
    key,
    digest,
    tag,
    mediaType,
    sizeBytes,
    from: undefined,
    sender,
  };
}
