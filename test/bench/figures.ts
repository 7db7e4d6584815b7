import type { Figure } from "./figure.ts";
import { blobLarge, blobSmall } from "./figures/blob-hits.ts";
import { coldBlob, coldBlobLink, firstByte } from "./figures/cold-blob.ts";
import { coldCrowd, coldCrowdLink } from "./figures/cold-crowd.ts";
import { containerdPull, podmanPull } from "./figures/image-pull.ts";
import { hostedHits } from "./figures/hosted-hits.ts";
import { indexSize } from "./figures/index-size.ts";
import { memory } from "./figures/memory.ts";
import { collection, pushLarge, pushLayers } from "./figures/push.ts";
import { pullsUnderPushes } from "./figures/pulls-under-pushes.ts";
import { tagPages } from "./figures/tag-pages.ts";
import { tagLatency } from "./figures/tag-latency.ts";
import { tlsBlob } from "./figures/tls.ts";
import { manifestDigest, manifestTag } from "./figures/manifest-hits.ts";

/** All figures, in the order in which they are measured. */
export const FIGURES: readonly Figure[] = [
  manifestDigest,
  manifestTag,
  blobLarge,
  blobSmall,
  coldBlob,
  coldBlobLink,
  firstByte,
  coldCrowd,
  coldCrowdLink,
  podmanPull,
  containerdPull,
  tagLatency,
  memory,
  indexSize,
  tlsBlob,
  pushLayers,
  pushLarge,
  collection,
  hostedHits,
  pullsUnderPushes,
  tagPages,
];
