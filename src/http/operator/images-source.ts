import type { FastifyRequest } from "fastify";
import type { ImageReference } from "../../images/image-reference.ts";
import { AuditedImages } from "../../images/audited-images.ts";
import type { Images } from "../../images/images.ts";
import type { Routes } from "../../routing/routes.ts";
import type { Audit } from "../../telemetry/audit.ts";
import { canonicalAddress } from "../client-auth/networks.ts";

/** The parts of the program that the operator API of images calls. */
export interface ImagesSource {
  readonly audit: Pick<Audit, "record">;
  readonly images: Pick<
    Images,
    "list" | "resolve" | "get" | "setPinned" | "remove" | "evict"
  >;
  readonly routes: Pick<Routes, "findHosted">;
  /** Sends a request to the upstream. @throws Refusal */
  refresh(image: ImageReference): Promise<{
    readonly digest: string;
    readonly changed: boolean;
  }>;
}

/** The operations that change images, each recorded in the audit log with the client's address. */
export function auditedImages(
  { images, audit }: ImagesSource,
  { remoteAddress }: FastifyRequest["socket"],
): AuditedImages {
  return new AuditedImages(images, audit, canonicalAddress(remoteAddress));
}
