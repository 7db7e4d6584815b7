import { RegistryError } from "../../oci/errors.ts";
import type {
  HostedDeletion,
  HostedManifestOutcome,
} from "../../storage/hosted-index.ts";
import type { HostedRepository } from "../hosted.ts";
import { overQuota } from "../quota-refusal.ts";

/** Returns the error of a manifest that the index refused. */
export function refuseOutcome(
  outcome: Exclude<HostedManifestOutcome, { readonly kind: "stored" }>,
  { key }: HostedRepository,
): RegistryError {
  switch (outcome.kind) {
    case "missing":
      return new RegistryError("MANIFEST_BLOB_UNKNOWN", {
        message: "the manifest names content that the repository does not have",
        detail: outcome.digest,
      });
    case "immutable":
      return refuseImmutable(outcome);
    case "over-quota":
      return overQuota(key.upstream);
    default:
      return outcome satisfies never;
  }
}

/** Returns the error of a change to an immutable tag. */
export function refuseImmutable({
  tag,
}: HostedDeletion & { readonly kind: "immutable" }): RegistryError {
  return new RegistryError("DENIED", {
    status: 409,
    message: `the tag ${tag} is immutable`,
    detail: tag,
  });
}
