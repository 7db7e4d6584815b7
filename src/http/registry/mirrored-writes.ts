import type { PurgeImage } from "../../images/purge-image.ts";
import { registryName, type RoutedRepository } from "../../routing/routes.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { Audit } from "../../telemetry/audit.ts";
import {
  addNamespace,
  type Call,
  type RepositoryTarget,
  targetOf,
} from "./call.ts";
import { MethodRefusal } from "./refusals.ts";
import { beginHead, sendBytes } from "./send.ts";

interface MirroredWrites {
  readonly purgeImage: PurgeImage;
  readonly audit: Pick<Audit, "record">;
}

/**
 * Answers a request that is neither GET nor HEAD: a mirrored image can be dropped from the cache,
 * and nothing can be pushed.
 *
 * @throws MethodRefusal, RegistryError
 */
export function writeMirrored(
  parts: MirroredWrites,
  call: Call,
  routed: RoutedRepository,
  target: RepositoryTarget,
): Promise<void> {
  if (call.request.method === "DELETE" && target.kind === "manifest") {
    return purge(parts, call, routed, target);
  }
  throw pushRefusal(call, routed, target);
}

/** Drops an image from the cache, so that clients' delete commands work as a purge. */
async function purge(
  { purgeImage, audit }: MirroredWrites,
  { exchange, response }: Call,
  routed: RoutedRepository,
  target: RepositoryTarget & { readonly kind: "manifest" },
): Promise<void> {
  const { reference: named } = target;
  const purged = await purgeImage({ key: targetOf(routed), reference: named });
  if (purged.length === 0) {
    throw new RegistryError("MANIFEST_UNKNOWN", {
      detail: "the image is not in the cache",
    });
  }
  for (const reference of purged) {
    const { client = "", user } = exchange;
    audit.record({ event: "purged", client, user, reference });
  }
  const head = beginHead("text/plain");
  addNamespace(head, routed);
  sendBytes(response, exchange, 202, head, "", false);
}

/** Returns the refusal of a push, which names the registry to push to. */
export function pushRefusal(
  { request, routes }: Call,
  routed: RoutedRepository,
  target: RepositoryTarget,
): MethodRefusal {
  const allow =
    target.kind === "manifest"
      ? "GET, HEAD, DELETE"
      : target.kind === "upload"
        ? ""
        : "GET, HEAD";
  const hosted = routes.pushTarget();
  const { host } = request.headers;
  const mirrored = `${registryName(routed)} is mirrored here and can only be pulled from`;
  if (hosted === undefined || host === undefined) {
    return new MethodRefusal(allow, mirrored);
  }
  const place = hosted === "" ? host : `${host}/${hosted}`;
  return new MethodRefusal(
    allow,
    `${mirrored}; push to ${place}/${routed.repository}`,
  );
}
