import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import type { Config } from "../../../src/config/config.ts";
import type { LoadResult } from "../../../src/config/load.ts";

/** The defaults of an upstream of which only the name is configured. */
const UPSTREAM_DEFAULTS: Omit<
  Config["upstreams"][number],
  "name" | "endpoints"
> = {
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

function configOf(result: LoadResult): Config {
  assert.deepEqual(printedFaults(result), []);
  assert.ok(result.ok);
  return result.config;
}

/** The registry that is hosted by default. */
const LOCAL = {
  name: "local",
  isDefault: false,
  hostnames: [],
  anonymousPush: "loopback",
  immutableTags: [],
  quotaBytes: Infinity,
  maxManifestBytes: 4 * 1024 ** 2,
  uploadExpiryMs: 24 * 3_600_000,
};

void test("uses the defaults of the contract without file and environment", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.load();
  const { upstreams, ...config } = configOf(result);
  assert.deepEqual(config, {
    listen: [{ host: "127.0.0.1", port: 5000 }],
    operator: { listen: { host: "127.0.0.1", port: 5001 } },
    storage: { root: join(folder.path, "data") },
    eviction: {
      maxSize: { share: 0.8 },
      minFree: { share: 0.05 },
      maxIdleMs: 90 * 86_400_000,
      keep: [],
    },
    scrub: { dailyShare: 0.01, onReadMs: 7 * 24 * 3_600_000 },
    offline: false,
    hosted: [LOCAL],
    notifications: [],
    warm: [],
    trustedProxies: [],
    limits: { connections: 0, connectionsPerAddress: 0, fills: 0, uploads: 0 },
    audit: {},
    log: { level: "info", format: "json" },
  });
  const [hub, ...others] = upstreams;
  assert.deepEqual(hub, {
    ...UPSTREAM_DEFAULTS,
    name: "docker.io",
    isDefault: true,
    endpoints: ["https://registry-1.docker.io"],
    aliases: ["index.docker.io", "registry-1.docker.io"],
    libraryPrefix: true,
  });
  assert.deepEqual(
    others,
    [
      "quay.io",
      "ghcr.io",
      "gcr.io",
      "registry.k8s.io",
      "mcr.microsoft.com",
      "public.ecr.aws",
      "registry.access.redhat.com",
      "registry.redhat.io",
      "registry.gitlab.com",
      "nvcr.io",
      "docker.elastic.co",
    ].map((name) => ({
      ...UPSTREAM_DEFAULTS,
      name,
      endpoints: [`https://${name}`],
    })),
  );
  assert.deepEqual(result.warnings, []);
  assert.ok(result.ok);
  assert.deepEqual(result.sources, {
    configFile: undefined,
    files: [],
    variables: [],
  });
});

void test("every key of a file reaches the configuration in milliseconds and absolute paths", async (t) => {
  const folder = await makeConfigFolder(t);
  const { cert } = createCertificateAuthority();
  await folder.write("hub-password", "from file\n");
  await folder.write(
    "hook-headers",
    "Authorization: Bearer hunter2\r\n\nX-Team:a b \n",
  );
  await folder.write("ca.crt", `Comment\n${cert}${cert}`);
  const result = await folder.loadText(`
listen: [0.0.0.0:80, "[::1]:0"]
operator: { listen: false }
trustedProxies: [10.0.0.1, "fd00::/64"]
limits: { connections: 9, connectionsPerAddress: 5, fills: 2, uploads: 0 }
audit: { file: audit.jsonl }
storage: { root: cache }
eviction:
  maxSize: 1.5TiB
  minFree: 2.5%
  maxIdle: forever
  keep: ["registry.corp:5000/team/**", "**:stable"]
scrub: { background: off, onRead: 36h }
offline: true
upstreams:
  registry.corp:5000:
    default: true
    endpoints: [https://REGISTRY.corp:443/hub/, "http://[::1]:80/"]
    aliases: [corp, registry.corp]
    hostnames: [corp.mirror.internal, corp.mirror.internal:5000]
    libraryPrefix: true
    credentials:
      - { username: inline, password: " spaced " }
      - { username: filed, passwordFile: hub-password }
    access: shared
    freshness:
      tagTtl: 0s
      rules:
        - { match: "**:latest", ttl: 1m }
        - { match: "team/*", ttl: forever }
      staleIfGone: 30d
      staleIfError: 90d
      staleWhileRevalidate: 1.5h
      notFoundTtl: 0s
    allow: ["team/**", "library/*:1.*"]
    deny: ["**:latest"]
    redirectHosts: [minio.corp, "**.s3.corp", 10.0.0.0/8, "fd00::/8"]
    tokenRealms: [auth.corp, "auth.corp:8443"]
    concurrency: 1024
    bandwidth: 1.5MiB
    proxy: none
    connectTimeout: 1ms
    headersTimeout: 18s
    idleTimeout: 1h
    tls: { caFile: ./ca.crt, insecureSkipVerify: false }
hosted:
  local:
  team:
    hostnames: [registry.corp, registry.corp:8443]
    anonymousPush: anywhere
    immutableTags: ["**:v*", releases]
    quota: 1.5GiB
    maxManifestSize: 8MiB
    uploadExpiry: 36h
    retention:
      schedule: 30 2 * * SUN
      rules:
        - { match: "ci/**", keepNewest: 10, keepPulledWithin: 30d, keepTags: ["v*"] }
        - { match: "nightly:*", keepPulledWithin: forever }
      untagged: 36h
  other:
    retention: {}
notifications:
  - { url: "https://hooks.corp/entrepot", headersFile: hook-headers }
  - { url: "http://127.0.0.1:8080/", events: [push, pull, delete, mount] }
warm:
  - { schedule: 30 2 * * SUN, list: images.txt, platforms: [linux/arm64/v8], withReferrers: true, pin: true }
log: { level: trace, format: pretty }
`);
  const { upstreams, notifications, ...config } = configOf(result);
  const [hook, local] = notifications;
  assert.ok(hook && local);
  assert.equal(hook.url.reveal(), "https://hooks.corp/entrepot");
  assert.equal(hook.headersFile, join(folder.path, "hook-headers"));
  assert.deepEqual(
    [...hook.headers].map(([name, value]) => [name, value.reveal()]),
    [
      ["Authorization", "Bearer hunter2"],
      ["X-Team", "a b"],
    ],
  );
  assert.deepEqual(hook.events, ["push", "delete"]);
  assert.equal(local.url.reveal(), "http://127.0.0.1:8080/");
  assert.equal(local.headers.size, 0);
  assert.deepEqual(local.events, ["push", "pull", "delete", "mount"]);
  assert.deepEqual(config, {
    listen: [
      { host: "0.0.0.0", port: 80 },
      { host: "::1", port: 0 },
    ],
    operator: { listen: undefined },
    storage: { root: join(folder.path, "cache") },
    eviction: {
      maxSize: { bytes: 1.5 * 1024 ** 4 },
      minFree: { share: 0.025 },
      maxIdleMs: Infinity,
      keep: ["registry.corp:5000/team/**", "**:stable"],
    },
    scrub: { dailyShare: 0, onReadMs: 36 * 3_600_000 },
    offline: true,
    hosted: [
      LOCAL,
      {
        ...LOCAL,
        name: "team",
        hostnames: ["registry.corp", "registry.corp:8443"],
        anonymousPush: "anywhere",
        immutableTags: ["**:v*", "releases"],
        quotaBytes: 1.5 * 1024 ** 3,
        maxManifestBytes: 8 * 1024 ** 2,
        uploadExpiryMs: 36 * 3_600_000,
        retention: {
          schedule: "30 2 * * SUN",
          rules: [
            {
              match: "ci/**",
              keepNewest: 10,
              keepPulledWithinMs: 30 * 86_400_000,
              keepTags: ["v*"],
            },
            {
              match: "nightly:*",
              keepPulledWithinMs: Infinity,
              keepTags: [],
            },
          ],
          untaggedMs: 36 * 3_600_000,
        },
      },
      {
        ...LOCAL,
        name: "other",
        retention: {
          schedule: "0 3 * * *",
          rules: [],
          untaggedMs: 7 * 86_400_000,
        },
      },
    ],
    warm: [
      {
        schedule: "30 2 * * SUN",
        list: join(folder.path, "images.txt"),
        platforms: ["linux/arm64/v8"],
        withReferrers: true,
        pin: true,
      },
    ],
    trustedProxies: ["10.0.0.1", "fd00::/64"],
    limits: { connections: 9, connectionsPerAddress: 5, fills: 2, uploads: 0 },
    audit: { file: join(folder.path, "audit.jsonl") },
    log: { level: "trace", format: "pretty" },
  });
  assert.equal(upstreams.length, 1);
  const [{ credentials, ...upstream } = assert.fail()] = upstreams;
  assert.deepEqual(upstream, {
    name: "registry.corp:5000",
    isDefault: true,
    endpoints: ["https://registry.corp/hub", "http://[::1]"],
    aliases: ["corp", "registry.corp"],
    hostnames: ["corp.mirror.internal", "corp.mirror.internal:5000"],
    libraryPrefix: true,
    freshness: {
      tagTtlMs: 0,
      rules: [
        { match: "**:latest", ttlMs: 60_000 },
        { match: "team/*", ttlMs: Infinity },
      ],
      staleIfGoneMs: 2_592_000_000,
      staleIfErrorMs: 7_776_000_000,
      staleWhileRevalidateMs: 5_400_000,
      notFoundTtlMs: 0,
    },
    allow: ["team/**", "library/*:1.*"],
    deny: ["**:latest"],
    redirectHosts: ["minio.corp", "**.s3.corp", "10.0.0.0/8", "fd00::/8"],
    tokenRealms: ["auth.corp", "auth.corp:8443"],
    concurrency: 1024,
    bandwidthBytesPerSecond: 1_572_864,
    proxy: { source: "none", https: undefined, http: undefined, noProxy: [] },
    connectTimeoutMs: 1,
    headersTimeoutMs: 18_000,
    idleTimeoutMs: 3_600_000,
    tls: {
      ca: `${cert.trim()}\n${cert.trim()}`,
      caFile: join(folder.path, "ca.crt"),
      insecureSkipVerify: false,
    },
  });
  assert.deepEqual(
    credentials.map((credential) => {
      assert.ok("password" in credential);
      const { password, ...rest } = credential;
      return [rest, password.reveal()];
    }),
    [
      [{ username: "inline" }, " spaced "],
      [
        {
          username: "filed",
          passwordFile: join(folder.path, "hub-password"),
        },
        "from file",
      ],
    ],
  );
  assert.ok(result.ok);
  assert.deepEqual(result.sources, {
    configFile: join(folder.path, "c.yaml"),
    files: [
      join(folder.path, "hub-password"),
      join(folder.path, "ca.crt"),
      join(folder.path, "hook-headers"),
    ],
    variables: [],
  });
});

void test("freezes the configuration to its leaves", async (t) => {
  const folder = await makeConfigFolder(t);
  const config = configOf(await folder.load());
  const values: unknown[] = [config];
  for (const value of values) {
    if (typeof value !== "object" || value === null) continue;
    assert.ok(Object.isFrozen(value));
    values.push(...Object.values(value));
  }
  assert.ok(values.length > 200);
});
