import type { HostedContent } from "../../hosted/content/content.ts";
import { RegistryError } from "../../oci/errors.ts";
import { formatDistributionPath } from "../../oci/path.ts";
import { parseTag, type Tag } from "../../oci/reference.ts";
import type { RoutedHosted } from "../../routing/routes.ts";
import {
  addNamespace,
  type Call,
  hostedOf,
  type RepositoryTarget,
  senderOf,
} from "./call.ts";
import type { ManifestBodyReader } from "./read-manifest-body.ts";
import { beginHead, sendBytes } from "./send.ts";

type ManifestTarget = RepositoryTarget & { readonly kind: "manifest" };

/** Stores the manifest in the body of a request. @throws RegistryError */
export async function putManifest(
  content: HostedContent,
  bodies: ManifestBodyReader,
  call: Call,
  routed: RoutedHosted,
  target: ManifestTarget,
): Promise<void> {
  const tags = parseTags(target.tags ?? []);
  const repository = hostedOf(routed);
  const { maxManifestBytes } = repository.config;
  const bytes = await bodies.read(
    call.request,
    call.response,
    maxManifestBytes,
  );
  const { digest, subject } = await content.putManifest(
    repository,
    {
      bytes,
      contentType: call.request.headers["content-type"],
      reference: target.reference,
      tags,
    },
    senderOf(call),
  );
  const { repository: name } = target;
  const reference = { kind: "digest", digest } as const;
  const stored = { kind: "manifest", repository: name, reference } as const;
  const head = beginHead("text/plain");
  head.push(
    "Location",
    formatDistributionPath({ ...call.requested.path, target: stored }),
    "Docker-Content-Digest",
    digest,
  );
  if (subject !== undefined) head.push("OCI-Subject", subject);
  for (const tag of tags) head.push("OCI-Tag", tag);
  addNamespace(head, routed);
  sendBytes(call.response, call.exchange, 201, head, "", false);
}

/** Deletes a tag, a manifest or a blob. @throws RegistryError */
export async function deleteContent(
  content: HostedContent,
  call: Call,
  routed: RoutedHosted,
  target: ManifestTarget | (RepositoryTarget & { readonly kind: "blob" }),
): Promise<void> {
  const repository = hostedOf(routed);
  const sender = senderOf(call);
  await (target.kind === "manifest"
    ? content.deleteManifest(repository, target.reference, sender)
    : content.deleteBlob(repository, target.digest, sender));
  const head = beginHead("text/plain");
  addNamespace(head, routed);
  sendBytes(call.response, call.exchange, 202, head, "", false);
}

/** @throws RegistryError TAG_INVALID */
function parseTags(texts: readonly string[]): readonly Tag[] {
  const tags = new Set<Tag>();
  for (const text of texts) {
    const tag = parseTag(text);
    if (tag === undefined) {
      throw new RegistryError("TAG_INVALID", {
        detail:
          "got an invalid tag in the query; expected at most 128 letters, digits, _, . and -",
      });
    }
    tags.add(tag);
  }
  return [...tags];
}
