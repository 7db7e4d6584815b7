import type { HostedConfig } from "../../src/config/config.ts";

/** Returns a hosted registry as the loader makes it from an empty mapping. */
export function hostedConfig(
  overrides: Partial<HostedConfig> = {},
): HostedConfig {
  return {
    name: "local",
    isDefault: false,
    hostnames: [],
    anonymousPush: "loopback",
    immutableTags: [],
    quotaBytes: Infinity,
    maxManifestBytes: 4 * 1024 * 1024,
    uploadExpiryMs: 24 * 3_600_000,
    retention: undefined,
    ...overrides,
  };
}
