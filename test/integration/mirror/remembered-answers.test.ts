import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import * as fc from "fast-check";
import type {
  AccessConfig,
  UpstreamConfig,
} from "../../../src/config/config.ts";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

/*
 * The mirror keeps parsed request targets, index rows and manifest bytes in memory, so that most
 * responses need no I/O. Clients and operators must not notice it in responses, logs or metrics.
 */

const IMAGE = buildImage({ seed: "remembered" });
const MOVED = buildImage({ seed: "remembered-moved" });
const { digest } = IMAGE.manifest;
const TTL_MS = 600_000;

const hub = (upstream: ScriptedUpstream, more: Partial<UpstreamConfig> = {}) =>
  upstreamOf(upstream, {
    name: "docker.io",
    aliases: ["hub.alias"],
    hostnames: ["hub.internal"],
    libraryPrefix: true,
    ...more,
  });

async function setUp(test: AfterTest, access?: AccessConfig) {
  const upstream = await ScriptedUpstream.start(test);
  const other = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", IMAGE, "1");
  upstream.content.addImage("library/closed", IMAGE, "1");
  other.content.addImage("library/app", MOVED, "1");
  const upstreams = [
    hub(upstream),
    upstreamOf(other, {
      name: "quay.io",
      isDefault: false,
      hostnames: ["quay.internal"],
    }),
  ];
  const mirror = await startMirror(
    test,
    upstreams,
    access === undefined ? {} : { access },
  );
  return { upstream, upstreams, mirror };
}

type Ask = Pick<RawRequest, "method" | "path" | "headers">;

const SPELLINGS = [
  (name: string, rest: string) => `/v2/${name}/${rest}`,
  (name: string, rest: string) => `/v2/library/${name}/${rest}`,
  (name: string, rest: string) => `/v2/docker.io/library/${name}/${rest}`,
  (name: string, rest: string) => `/v2/library/${name}/${rest}?ns=hub.alias`,
  (name: string, rest: string) => `/v2/library/${name}/${rest}?ns=QUAY.io`,
  (name: string, rest: string) => `/v2/library/${name}/${rest}?ns=unknown`,
  (name: string, rest: string) => `/quay.io/v2/library/${name}/${rest}`,
];

const REFERENCES = [
  "manifests/1",
  `manifests/${digest}`,
  `manifests/${MOVED.manifest.digest}`,
  `manifests/${digest.replace(/[0-9a-f]$/, (last) => (last === "0" ? "1" : "0"))}`,
  "manifests/absent",
  "manifests/!",
  `blobs/${digest}`,
];

const HEADERS: Readonly<Record<string, string>>[] = [
  { "If-None-Match": `"${digest}"` },
  { "If-None-Match": `W/"${digest}", "x"` },
  { "If-None-Match": "*" },
  { "If-None-Match": '"x"' },
  { Range: "bytes=1-2" },
  { Range: "bytes=99999999-" },
  { "If-Range": '"x"', Range: "bytes=1-2" },
  { Host: "quay.internal" },
  { Host: "HUB.internal:5000" },
  { Accept: "application/json" },
  { Authorization: basic("alice", "secret") },
  { Authorization: basic("alice", "wrong") },
  { "X-Forwarded-For": "192.0.2.1" },
  { Via: "1.1 proxy" },
];

const asks: fc.Arbitrary<Ask> = fc
  .record({
    // A DELETE would drop the cached copy.
    method: fc.constantFrom("GET", "GET", "HEAD", "HEAD", "POST", "PUT"),
    name: fc.constantFrom("app", "app", "closed", "gone"),
    spelling: fc.constantFrom(...SPELLINGS),
    reference: fc.constantFrom(...REFERENCES),
    headers: fc.subarray(HEADERS, { maxLength: 2 }),
  })
  .map(({ method, name, spelling, reference, headers }) => ({
    method,
    path: spelling(name, reference),
    headers: Object.assign({}, ...headers) as Record<string, string>,
  }));

let count = 0;

/** Returns all observable results of one request: its response and its log line. */
async function observe(
  mirror: TestMirror,
  { path, method = "GET", headers }: Ask,
) {
  count += 1;
  const agent = `observer-${count}`;
  const { status, rawHeaders, body } = await mirror.start(path, {
    method,
    headers: { ...headers, "User-Agent": agent },
  }).response;
  const find = () => mirror.log.find((line) => line["userAgent"] === agent);
  while (find() === undefined) await setImmediate();
  const { time: _, durationMs, userAgent: __, ...logged } = find() ?? {};
  assert.equal(typeof durationMs, "number");
  return {
    status,
    headers: rawHeaders.filter(([name]) => name !== "Date"),
    body: body.toString(),
    logged,
  };
}

/** Drops all routes and rows from memory, by a reload and a write to the index. */
async function forget(
  mirror: TestMirror,
  upstreams: readonly UpstreamConfig[],
) {
  await mirror.reload({ upstreams: [...upstreams] });
  for (const method of ["PUT", "DELETE"]) {
    const { status } = await mirror.operate(
      method,
      "/images/docker.io/library/app:1/pin",
    );
    assert.equal(status, 200);
  }
}

/** Returns the growth of the request counters. */
async function counted(mirror: TestMirror, work: () => Promise<void>) {
  const read = async () =>
    new Map(
      (await mirror.metrics())
        .split("\n")
        .filter((line) =>
          /^entrepot_(http_requests_total|http_request_duration_seconds_count|cache_requests_total|served_bytes_total)/.test(
            line,
          ),
        )
        .map((line) => {
          const at = line.lastIndexOf(" ");
          return [line.slice(0, at), Number(line.slice(at + 1))] as const;
        }),
    );
  const before = await read();
  await work();
  return [...(await read())]
    .map(([name, value]) => [name, value - (before.get(name) ?? 0)] as const)
    .filter(([, growth]) => growth > 0);
}

void describe("an answer from memory", () => {
  const rules: AccessConfig["rules"] = [
    { who: ["*"], repositories: ["*/library/app"], actions: ["pull"] },
    { who: ["alice"], repositories: ["**"], actions: ["pull"] },
  ];
  for (const [name, access] of Object.entries({
    "without access rules": undefined,
    "with access rules": accessConfig({ rules }),
    "without anonymous access": accessConfig({ rules, anonymous: "none" }),
  })) {
    void it(`is identical to one from the storage, ${name}`, async (test) => {
      const htpasswdFile = await writeHtpasswd(test, { alice: "secret" });
      const { mirror, upstreams } = await setUp(
        test,
        access && { ...access, htpasswdFile },
      );
      const user = { Authorization: basic("alice", "secret") };
      for (const path of ["/v2/app/manifests/1", "/v2/closed/manifests/1"]) {
        assert.equal((await mirror.get(path, user)).status, 200);
      }
      await fc.assert(
        fc.asyncProperty(asks, async (ask) => {
          // Lets the limit of wrong log-ins recover.
          mirror.clock.advance(60_000);
          // Absence is remembered, so the first answer may differ.
          await observe(mirror, ask);
          await forget(mirror, upstreams);
          const read: unknown[] = [];
          const remembered: unknown[] = [];
          const countedRead = await counted(mirror, async () => {
            read.push(await observe(mirror, ask));
          });
          await observe(mirror, ask);
          const countedRemembered = await counted(mirror, async () => {
            remembered.push(await observe(mirror, ask));
          });
          assert.deepEqual(remembered, read);
          assert.deepEqual(countedRemembered, countedRead);
        }),
        { numRuns: 40 },
      );
    });
  }

  void it("follows a reload of the access rules", async (test) => {
    const { mirror } = await setUp(test);
    const ask = { path: `/v2/app/manifests/${digest}` };
    for (const _ of [1, 2])
      assert.equal((await observe(mirror, ask)).status, 200);
    const closed = accessConfig({
      rules: [{ who: ["alice"], repositories: ["**"], actions: ["pull"] }],
      htpasswdFile: await writeHtpasswd(test, { alice: "secret" }),
    });
    await mirror.reload({ access: closed });
    for (const _ of [1, 2])
      assert.equal((await observe(mirror, ask)).status, 404);
    const headers = { Authorization: basic("alice", "secret") };
    const { status, logged } = await observe(mirror, { ...ask, headers });
    assert.deepEqual([status, logged["user"]], [200, "alice"]);
    assert.equal((await observe(mirror, ask)).status, 404);
  });

  void it("follows a reload of the upstreams", async (test) => {
    const { mirror, upstream, upstreams } = await setUp(test);
    const other = upstreams.slice(1);
    const ask = { path: `/v2/library/app/manifests/1?ns=hub.alias` };
    for (const _ of [1, 2])
      assert.equal((await observe(mirror, ask)).status, 200);
    await mirror.reload({
      upstreams: [hub(upstream, { aliases: [] }), ...other],
    });
    assert.equal((await observe(mirror, ask)).status, 404);
    await mirror.reload({
      upstreams: [hub(upstream, { deny: ["**"] }), ...other],
    });
    assert.equal((await observe(mirror, ask)).status, 404);
    await mirror.reload({ upstreams: [hub(upstream), ...other] });
    const { status, headers } = await observe(mirror, ask);
    assert.equal(status, 200);
    assert.deepEqual(
      headers.find(([name]) => name === "OCI-Namespace"),
      ["OCI-Namespace", "hub.alias"],
    );
  });

  void it("follows a tag that moves, with the correct Age", async (test) => {
    const { mirror, upstream } = await setUp(test);
    const ask = { path: "/v2/app/manifests/1" };
    const headerOf = async (name: string) =>
      (await observe(mirror, ask)).headers.find(([one]) => one === name)?.[1];
    await observe(mirror, ask);
    assert.equal(await headerOf("Age"), "0");
    mirror.clock.advance(90_000);
    assert.equal(await headerOf("Age"), "90");
    assert.equal(await headerOf("Cache-Status"), "entrepot; hit; ttl=510");
    upstream.content.addImage("library/app", MOVED, "1");
    assert.equal(await headerOf("Docker-Content-Digest"), digest);
    mirror.clock.advance(TTL_MS);
    for (const _ of [1, 2]) {
      assert.equal(
        await headerOf("Docker-Content-Digest"),
        MOVED.manifest.digest,
      );
    }
  });

  void it("is not given for removed content", async (test) => {
    const { mirror, upstream } = await setUp(test);
    const ask = { path: `/v2/app/manifests/1` };
    const asked = () => upstream.count({ kind: "manifest" });
    for (const _ of [1, 2, 3]) await observe(mirror, ask);
    const before = asked();
    const dropped = await mirror.operate(
      "DELETE",
      "/images/docker.io/library/app:1",
    );
    assert.equal(dropped.status, 200);
    assert.equal((await observe(mirror, ask)).status, 200);
    assert.ok(asked() > before);
    await mirror.operate("DELETE", "/images/docker.io/library/app:1");
    upstream.content.removeTag("library/app", "1");
    for (const _ of [1, 2])
      assert.equal((await observe(mirror, ask)).status, 404);
  });
});
