import type { HostedConfig } from "../../../config/config.ts";
import type { Sender } from "../../../hosted/hosted.ts";
import { explainStorageFailure } from "../../../hosted/storage-failures.ts";
import type { RegistryError } from "../../../oci/errors.ts";
import { MAX_MANIFEST_BYTES } from "../../../oci/manifest.ts";
import type { RoomBounds } from "../../../retention/room-bounds.ts";
import type { Room } from "../../../retention/room.ts";
import type { Audit } from "../../../telemetry/audit.ts";
import { imageText } from "../../image-reference.ts";
import type { JobProgress } from "../../jobs/job.ts";
import {
  type ImportOptions,
  type ImportReport,
  INDEX_FILE,
  LAYOUT_FILE,
} from "../bundle.ts";
import { BundleGraph, type BundleGraphParts } from "./bundle-graph.ts";
import {
  type BundleIndex,
  checkLayout,
  parseBundleIndex,
} from "./bundle-index.ts";
import { refuseBundle } from "./bundle-refusal.ts";
import type { NameRoutes } from "./image-names.ts";
import { ImportRoom } from "./import-room.ts";
import { type PlannedImage, planImport } from "./plan-import.ts";
import { type ArchiveMember, readArchive } from "./read-archive.ts";
import { ReceivedBlobs, type ReceivedBlobsParts } from "./received-blobs.ts";
import { HostedRecords, type RecordHostedParts } from "./record-hosted.ts";
import {
  MirroredRecords,
  type RecordMirroredParts,
} from "./record-mirrored.ts";

export interface ImportParts extends Pick<BundleGraphParts, "maxParts"> {
  readonly blobs: ReceivedBlobsParts["blobs"];
  readonly index: BundleGraphParts["index"] &
    ReceivedBlobsParts["index"] &
    RecordHostedParts["index"] &
    RecordMirroredParts["index"];
  readonly evictor: ReceivedBlobsParts["evictor"] &
    RecordMirroredParts["evictor"];
  readonly clock: RecordMirroredParts["clock"];
  readonly putManifest: RecordHostedParts["putManifest"];
  readonly events: RecordHostedParts["events"];
  readonly reservedBytes: RecordHostedParts["reservedBytes"];
  readonly routes: NameRoutes & {
    findHosted(registry: string): HostedConfig | undefined;
  };
  /** Reserves room for mirrored images, and for hosted ones. Absent: not limited before the disk is full. */
  readonly room?:
    | (Pick<Room, "reserve"> & { readonly uploads: Pick<Room, "reserve"> })
    | undefined;
  readonly readBounds: () => Promise<RoomBounds>;
  /** Resolves when the index has everything that the storage has: what a killed import left, too. */
  readonly recovered: () => Promise<void>;
  readonly audit: Pick<Audit, "record">;
}

/** An archive on its way in. */
export interface BundleSource {
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Undefined: unknown. */
  readonly sizeBytes: number | undefined;
}

export interface ImportRun {
  /** Ends the import between two reads. What it stored by then stays, so that the next one continues. */
  readonly signal: AbortSignal;
  readonly report: (progress: Partial<JobProgress>) => void;
  /** The source of the order: its client is an address, or `command-line`. */
  readonly sender: Sender & { readonly client: string };
}

/** Imports a bundle, see {@link importBundle}. */
export type ImportBundle = (
  source: BundleSource,
  options: ImportOptions,
  run: ImportRun,
) => Promise<ImportReport>;

/** Bytes between two reports of progress. */
const REPORT_EVERY_BYTES = 4 * 1024 * 1024;
/** All files beside the layout together, such as docker's `manifest.json`. */
const MAX_OTHER_BYTES = 256 * 1024 * 1024;

/**
 * Imports a bundle: verifies and stores each blob, checks that every image is complete, then records
 * the images under their names. If the bundle is refused, nothing of it stays stored.
 *
 * @throws RegistryError with the reason of a refusal; StorageError, IndexError; the signal's reason
 */
export async function importBundle(
  parts: ImportParts,
  source: BundleSource,
  options: ImportOptions,
  run: ImportRun,
): Promise<ImportReport> {
  await parts.recovered();
  run.signal.throwIfAborted();
  const isHosted = options.into !== undefined;
  const room = new ImportRoom({
    room: isHosted ? parts.room?.uploads : parts.room,
    readBounds: parts.readBounds,
  });
  const received = new ReceivedBlobs(parts, room);
  let isKept = false;
  try {
    const check = isHosted ? undefined : () => room.check(source.sizeBytes);
    const index = await receive(source, received, run, check);
    const graph = new BundleGraph(parts, received, index);
    const images = await planImport(index, graph, options, parts.routes);
    run.signal.throwIfAborted();
    await record(parts, images, options, run);
    return reportOf(images, received);
  } catch (error) {
    isKept = run.signal.aborted;
    throw isKept ? run.signal.reason : explainStorageFailure(error);
  } finally {
    received.release();
    if (!isKept) await received.dropUnneeded();
  }
}

/** Stores the blobs of the archive. @returns its `index.json` */
async function receive(
  source: BundleSource,
  received: ReceivedBlobs,
  run: ImportRun,
  checkRoom = () => Promise.resolve(),
): Promise<BundleIndex> {
  let index: BundleIndex | undefined;
  let hasLayout = false;
  let isDocker = false;
  let otherBytes = 0;
  const archive = readArchive(measure(source, run), { onPlain: checkRoom });
  for await (const member of archive) {
    run.signal.throwIfAborted();
    const { meaning } = member;
    switch (meaning.kind) {
      case "blob":
        await received.receive(meaning.digest, member);
        break;
      case "index":
        if (index !== undefined) throw twice(member);
        index = parseBundleIndex(await readJson(member));
        break;
      case "layout":
        if (hasLayout) throw twice(member);
        hasLayout = true;
        checkLayout(await readJson(member));
        break;
      case "docker":
      case "other":
        // A layer comes first in such an archive: the rest is not read.
        if (meaning.kind === "docker" && index === undefined && !hasLayout) {
          throw dockerArchive();
        }
        isDocker ||= member.name === "manifest.json";
        otherBytes += member.sizeBytes;
        if (otherBytes > MAX_OTHER_BYTES) {
          throw refuseBundle(
            `got more than ${MAX_OTHER_BYTES} bytes of files that are not part of an image layout, ` +
              `${member.name} among them; expected an OCI image layout`,
          );
        }
        await discard(member);
        break;
      default:
        meaning satisfies never;
    }
  }
  if (index !== undefined) return index;
  if (isDocker) throw dockerArchive();
  throw refuseBundle(
    `got an archive without ${INDEX_FILE}; expected an OCI image layout (${LAYOUT_FILE}, ${INDEX_FILE}, blobs/)`,
  );
}

/** Ends with the signal, and reports the progress in bytes of the archive. */
async function* measure(
  { bytes, sizeBytes }: BundleSource,
  { signal, report }: ImportRun,
): AsyncGenerator<Uint8Array> {
  let readBytes = 0;
  let reportedBytes = 0;
  report({ bytes: 0, bytesTotal: sizeBytes ?? 0 });
  for await (const chunk of bytes) {
    signal.throwIfAborted();
    readBytes += chunk.length;
    if (readBytes - reportedBytes >= REPORT_EVERY_BYTES) {
      reportedBytes = readBytes;
      report({ bytes: readBytes });
    }
    yield chunk;
  }
  report({ bytes: readBytes, bytesTotal: readBytes });
}

async function readJson(member: ArchiveMember): Promise<Buffer> {
  if (member.sizeBytes > MAX_MANIFEST_BYTES) {
    throw refuseBundle(
      `member ${member.name}: got ${member.sizeBytes} bytes; expected at most ${MAX_MANIFEST_BYTES}`,
    );
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of member.body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function discard(member: ArchiveMember): Promise<void> {
  for await (const _ of member.body);
}

function twice({ name }: ArchiveMember): RegistryError {
  return refuseBundle(`member ${name}: got it twice; expected once`);
}

function dockerArchive(): RegistryError {
  return refuseBundle(
    "got a docker-archive without an OCI layout; write an OCI archive, for example with " +
      "'skopeo copy docker-archive:FILE.tar oci-archive:OUT.tar:NAME' " +
      "or 'podman save --format oci-archive'; 'docker save' of Docker 25 and later writes one too",
  );
}

async function record(
  parts: ImportParts,
  images: readonly PlannedImage[],
  { isPinned }: ImportOptions,
  { sender, report }: ImportRun,
): Promise<void> {
  const { routes, audit } = parts;
  const mirrored = new MirroredRecords(parts);
  const hosted = new HostedRecords(
    parts,
    (registry) => routes.findHosted(registry),
    sender,
  );
  const recordsOf = ({ key }: PlannedImage) =>
    routes.findHosted(key.upstream) === undefined ? mirrored : hosted;
  const own = images.filter(({ isReferrer }) => !isReferrer);
  for (const image of images) {
    if (recordsOf(image) === hosted) await hosted.check(image);
  }
  try {
    // Everything that may be refused comes before the first name.
    for (const image of images) await recordsOf(image).store(image);
    report({ total: own.length });
    for (const [done, image] of images.entries()) {
      await recordsOf(image).name(image, isPinned);
      report({ done: Math.min(done + 1, own.length) });
    }
  } catch (error) {
    await hosted.undo();
    await mirrored.undo();
    throw error;
  }
  for (const image of own) {
    const { client } = sender;
    const reference = imageText(image);
    const { digest } = image;
    audit.record({ event: "imported", client, reference, digest });
  }
}

function reportOf(
  images: readonly PlannedImage[],
  received: ReceivedBlobs,
): ImportReport {
  const needed = new Set(
    images.flatMap(({ graph }) => [
      ...graph.blobs.keys(),
      ...graph.manifests.map(({ digest }) => digest),
    ]),
  );
  return {
    images: images
      .filter(({ isReferrer }) => !isReferrer)
      .map((image) => ({
        ref: imageText(image),
        digest: image.digest,
        absentManifests: image.graph.absent.length,
      })),
    ...received.countAdded(needed),
  };
}
