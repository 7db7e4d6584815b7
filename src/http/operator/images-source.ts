import type { FastifyRequest } from "fastify";
import type { ImageReference } from "../../images/image-reference.ts";
import {
  AuditedImages,
  type ImageOrders,
} from "../../images/audited-images.ts";
import type { HostedImages } from "../../images/hosted-images.ts";
import type { Images } from "../../images/images.ts";
import { canonicalAddress } from "../client-auth/networks.ts";

/** The parts of the program that the operator API of images calls. */
export interface ImagesSource {
  readonly images: Pick<Images, "list" | "resolve" | "get">;
  readonly orders: ImageOrders;
  readonly hosted: Pick<HostedImages, "isHosted">;
  /** Sends a request to the upstream. @throws Refusal */
  refresh(image: ImageReference): Promise<{
    readonly digest: string;
    readonly changed: boolean;
  }>;
}

/** The operations that change images, each recorded in the audit log with the client's address. */
export function auditedImages(
  { orders }: ImagesSource,
  {
    socket,
    headers,
    method,
  }: Pick<FastifyRequest, "socket" | "headers" | "method">,
): AuditedImages {
  return new AuditedImages(orders, {
    user: undefined,
    client: canonicalAddress(socket.remoteAddress),
    userAgent: headers["user-agent"],
    host: headers.host,
    method,
  });
}
