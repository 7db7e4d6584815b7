import type { HostedConfig } from "../config/config.ts";
import type { Collection } from "../hosted/collection.ts";
import { ManifestWrites } from "../hosted/content/manifest-writes.ts";
import type { EventSink } from "../hosted/hosted.ts";
import type { Evictor } from "../retention/evictor.ts";
import type { Routes } from "../routing/routes.ts";
import type { HostedIndex } from "../storage/hosted-index.ts";
import type { HotManifests } from "../storage/hot-manifests.ts";
import type { MetadataIndex } from "../storage/metadata-index.ts";
import type { TrackedBlobStore } from "../storage/tracked-blob-store.ts";
import type { Audit } from "../telemetry/audit.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { ImageOrders } from "./audited-images.ts";
import type { OpenExport } from "./bundles/export/tracked-exports.ts";
import type {
  ImportBundle,
  ImportParts,
} from "./bundles/import/import-bundle.ts";
import { HostedImages } from "./hosted-images.ts";
import { HostedSummaries } from "./hosted-summaries.ts";
import { Images } from "./images.ts";
import type { TagImageParts } from "./tag-image.ts";

export interface ImageServices {
  readonly images: Images;
  readonly hosted: HostedImages;
  readonly summaries: HostedSummaries;
  readonly orders: ImageOrders;
  readonly openExport: OpenExport;
  readonly importBundle: ImportBundle;
}

/** Creates the services of operators, for a running mirror or for the storage root of a stopped one. */
export function createImages(parts: {
  readonly index: HostedIndex & MetadataIndex;
  readonly blobs: TrackedBlobStore;
  readonly evictor: Evictor;
  readonly clock: Clock;
  readonly routes: Pick<
    Routes,
    "findHosted" | "findUpstream" | "routeRepository"
  >;
  /** The hosted registries that are configured now. */
  readonly registries: () => readonly HostedConfig[];
  readonly hasCredentials: (upstream: string) => boolean;
  readonly hot: HotManifests;
  readonly reservedBytes: (registry: string) => number;
  /** Receives the changes of orders; they have audit records of their own. */
  readonly events: EventSink;
  readonly garbage: Pick<Collection, "collect" | "reclaim">;
  readonly audit: Pick<Audit, "record">;
  readonly room: NonNullable<ImportParts["room"]>;
  readonly readBounds: ImportParts["readBounds"];
  readonly recovered: ImportParts["recovered"];
}): ImageServices {
  const { routes, hasCredentials, garbage, audit } = parts;
  const hosted = new HostedImages(parts);
  const images = new Images({ ...parts, hosted });
  const writes = new ManifestWrites({ ...parts, store: parts.blobs });
  const sharesBlobs = (registry: string): boolean =>
    routes.findUpstream(registry) !== undefined && !hasCredentials(registry);
  const putManifest: TagImageParts["putManifest"] = (repository, manifest) =>
    writes.put(repository, manifest);
  const tagging: TagImageParts = {
    ...parts,
    putManifest,
    findHosted: (registry) => routes.findHosted(registry),
    sharesBlobs,
  };
  return {
    images,
    hosted,
    summaries: new HostedSummaries(parts),
    orders: { images, hosted, tagging, garbage, audit },
    openExport: async (request, options) => {
      const { openBundle } = await import("./bundles/export/export-bundle.ts");
      return openBundle(
        { ...parts, images, hosted, sharesBlobs },
        request,
        options,
      );
    },
    importBundle: async (...input) => {
      const { importBundle } =
        await import("./bundles/import/import-bundle.ts");
      return importBundle({ ...parts, putManifest }, ...input);
    },
  };
}
