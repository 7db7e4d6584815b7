import type { UpstreamConfig } from "../../src/config/config.ts";

/** What the loader makes of an upstream of which nothing but its name is written. */
export const UPSTREAM_DEFAULTS: Omit<UpstreamConfig, "name" | "endpoints"> = {
  isDefault: false,
  aliases: [],
  hostnames: [],
  libraryPrefix: false,
  credentials: [],
  freshness: {
    tagTtlMs: 600_000,
    rules: [],
    staleIfGoneMs: 0,
    staleIfErrorMs: Infinity,
    staleWhileRevalidateMs: 0,
    notFoundTtlMs: 30_000,
  },
  allow: [],
  deny: [],
  redirectHosts: [],
  tokenRealms: [],
  concurrency: 0,
  bandwidthBytesPerSecond: Infinity,
  connectTimeoutMs: 5_000,
  headersTimeoutMs: 10_000,
  idleTimeoutMs: 15_000,
  proxy: {
    source: "environment",
    https: undefined,
    http: undefined,
    noProxy: [],
  },
  tls: { ca: undefined, insecureSkipVerify: false },
};
