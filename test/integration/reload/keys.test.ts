import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { diskLayout } from "../../../src/storage/local/root/disk-layout.ts";
import type { UpstreamConfig } from "../../../src/config/config.ts";
import { accessConfig } from "../../support/access.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { AuditFile } from "../../support/audit-file.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "reload", layers: [50_000] });
const TAG = "/v2/library/app/manifests/v";
const LIMITS = {
  connections: 0,
  connectionsPerAddress: 0,
  fills: 64,
  uploads: 0,
};

async function scripted(test: AfterTest): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", IMAGE, "v");
  return upstream;
}

void describe("a reload of offline", () => {
  void it("stops all connections to upstreams, and permits them again when it is reverted", async (test) => {
    const upstream = await scripted(test);
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    assert.equal((await mirror.get(TAG)).status, 200);
    assert.deepEqual(await mirror.reload({ offline: true }), ["offline"]);
    upstream.forgetRequests();
    const digest = seededBlob("absent", 10).digest;
    for (const path of [
      "/v2/library/app/manifests/w",
      `/v2/library/app/manifests/${digest}`,
      `/v2/library/app/blobs/${digest}`,
      "/v2/library/other/tags/list",
      `/v2/library/app/referrers/${digest}`,
    ]) {
      const { status, body } = await mirror.get(path);
      assert.equal(status, 404, path);
      assert.match(body.toString(), /"detail":"offline"/, path);
    }
    assert.equal(upstream.count(), 0);
    const status = await mirror.operate("GET", "/status");
    assert.equal(Reflect.get(status.body as object, "offline"), true);

    assert.deepEqual(await mirror.reload({ offline: false }), ["offline"]);
    const layer = IMAGE.layers[0]?.digest;
    const blob = await mirror.get(`/v2/library/app/blobs/${layer}`);
    assert.equal(blob.status, 200);
  });
});

void describe("a reload of limits", () => {
  void it("starts waiting downloads", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const barrier = new Barrier();
    const blobs = ["a", "b"].map((name) => seededBlob(name, 100_000));
    for (const blob of blobs) upstream.content.addBlob("x", blob);
    const get = { kind: "blob", method: "GET" } as const;
    upstream.when(get, { hold: { at: 50_000, barrier } });
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      config: { limits: { ...LIMITS, fills: 1 } },
    });
    const clients = blobs.map(({ digest }) =>
      mirror.start(`/v2/x/blobs/${digest}`),
    );
    await mirror.asked(2);
    await upstream.arrived(1, get);
    assert.equal(upstream.count(get), 1);
    const limits = { ...LIMITS, fills: 2 };
    assert.deepEqual(await mirror.reload({ limits }), ["limits"]);
    await upstream.arrived(2, get);
    barrier.release();
    for (const { response } of clients) {
      assert.equal((await response).bodyBytes, 100_000);
    }
  });

  void it("applies new limits of connections", async (test) => {
    const mirror = await startMirror(test, []);
    const sockets = [await idle(test, mirror), await idle(test, mirror)];
    const limits = { ...LIMITS, connections: 1, connectionsPerAddress: 1 };
    await mirror.reload({ limits });
    const closed = sockets.map((socket) => once(socket, "close"));
    await idle(test, mirror);
    // The mirror closes both: the new connection takes the only place.
    await Promise.all(closed);
  });
});

/** Opens a connection that is idle after one request. */
async function idle(test: AfterTest, mirror: TestMirror): Promise<Socket> {
  const socket = connect({ port: mirror.port, host: "127.0.0.1" });
  socket.on("error", () => {});
  releaseAfter(test, () => void socket.destroy());
  socket.write("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(socket, "data");
  socket.resume();
  return socket;
}

void describe("a reload of trustedProxies", () => {
  void it("trusts their X-Forwarded-For from the next request on", async (test) => {
    const access = accessConfig({ anonymousNetworks: ["10.0.0.0/8"] });
    const mirror = await startMirror(test, [], { access });
    const headers = { "X-Forwarded-For": "10.1.1.1" };
    assert.equal((await mirror.get("/v2/", headers)).status, 401);
    const trustedProxies = ["127.0.0.0/8"];
    assert.deepEqual(await mirror.reload({ trustedProxies }), [
      "trustedProxies",
    ]);
    assert.equal((await mirror.get("/v2/", headers)).status, 200);
    await mirror.reload({ trustedProxies: [] });
    assert.equal((await mirror.get("/v2/", headers)).status, 401);
  });
});

async function eventsOf(file: AuditFile): Promise<unknown[][]> {
  const records = await file.records();
  return records.map((record) => [record["event"], record["to"]]);
}

void describe("a reload of audit", () => {
  void it("continues in another file, which the old one names", async (test) => {
    const upstream = await scripted(test);
    const dir = await tempDir(test);
    const one = new AuditFile(join(dir, "one.jsonl"));
    const other = new AuditFile(join(dir, "other.jsonl"));
    const access = accessConfig({
      rules: [{ who: ["*"], repositories: ["x/**"], actions: ["pull"] }],
    });
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      access,
      config: { audit: { file: one.path } },
    });
    const to = async (file: string | undefined) => {
      assert.deepEqual(await mirror.reload({ audit: { file } }), ["audit"]);
    };
    await mirror.get(TAG);
    await to(other.path);
    await mirror.get(TAG);
    await to(undefined);
    await mirror.get(TAG);
    await to(one.path);
    await mirror.get(TAG);
    await mirror.close();
    assert.deepEqual(await eventsOf(one), [
      ["denied", undefined],
      ["audit-moved", other.path],
      ["denied", undefined],
    ]);
    assert.deepEqual(await eventsOf(other), [
      ["denied", undefined],
      ["audit-moved", null],
    ]);
  });

  void it("changes nothing if the file cannot be written", async (test) => {
    const upstream = await scripted(test);
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const file = join(await tempDir(test), "no", "audit.jsonl");
    await assert.rejects(
      mirror.reload({ audit: { file }, offline: true, upstreams: [] }),
      /audit\.file: got ENOENT.*; expected a writable file/,
    );
    const { status, headers } = await mirror.get(TAG);
    assert.equal(status, 200);
    assert.match(headers["cache-status"] ?? "", /fwd=miss/);
  });
});

void describe("a reload of scrub", () => {
  void it("starts and stops the background scrub", async (test) => {
    const upstream = await scripted(test);
    const schedule = new ManualSchedule();
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      scrubSchedule: schedule.start,
    });
    await pullImage(mirror, "library/app", "v");
    await mirror.settled();
    const layer = IMAGE.layers[0] ?? assert.fail();
    const file = diskLayout(mirror.root).blobFile(layer.digest);
    const day = async () => {
      mirror.clock.advance(60 * 60 * 1000);
      schedule.runNext();
      while (schedule.delaysMs.length === 0) {
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const findings = () =>
      mirror.log.filter(({ msg }) => msg === "scrub found faulty content")
        .length;
    corrupt(file);
    await day();
    assert.equal(findings(), 0);
    // The whole storage within an hour.
    assert.deepEqual(
      await mirror.reload({ scrub: { dailyShare: 24, onReadMs: Infinity } }),
      ["scrub"],
    );
    await day();
    assert.equal(findings(), 1);
    await mirror.settled();
    await mirror.reload({ scrub: { dailyShare: 0, onReadMs: Infinity } });
    corrupt(file);
    await day();
    assert.equal(findings(), 1);
  });

  void it("heals from upstreams that a reload has added, and not from a removed one", async (test) => {
    const [old, fresh] = [await scripted(test), await scripted(test)];
    const mirror = await startMirror(test, [named(old, "old.example")]);
    await pullImage(mirror, "library/app", "v");
    await mirror.reload({ upstreams: [named(fresh, "fresh.example")] });
    await pullImage(mirror, "library/app", "v");
    await mirror.settled();
    old.forgetRequests();
    fresh.forgetRequests();
    const layer = IMAGE.layers[0] ?? assert.fail();
    corrupt(diskLayout(mirror.root).blobFile(layer.digest));
    const { body } = await mirror.operate("POST", "/scrub", { repair: true });
    assert.equal(Reflect.get(body as object, "findings").length, 1);
    await fresh.arrived(1, { kind: "blob", method: "GET" });
    assert.equal(old.count(), 0);
  });
});

function named(upstream: ScriptedUpstream, name: string): UpstreamConfig {
  return upstreamOf(upstream, { name, isDefault: true });
}

function corrupt(file: string): void {
  const bytes = readFileSync(file);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  writeFileSync(file, bytes);
}
