import { RegistryError } from "../oci/errors.ts";

/** Returns the error of content that a registry's quota has no room for. */
export function overQuota(registry: string): RegistryError {
  return new RegistryError("DENIED", {
    message: `the quota of ${registry} is used up`,
  });
}
