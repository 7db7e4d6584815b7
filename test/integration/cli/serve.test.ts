import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { diskLayout } from "../../../src/storage/local/root/disk-layout.ts";
import { Barrier } from "../../support/barrier.ts";
import { Child } from "../../support/child-process.ts";
import { ChildMirror, hubConfig } from "../../support/child-mirror.ts";
import { seededBlob } from "../../support/image-builder.ts";
import { rawRequest, startRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { type AfterTest, tempDir } from "../../support/temp-dir.ts";

const MIB = 1024 * 1024;
const MAIN = join(import.meta.dirname, "../../../src/main.ts");

/** Runs the program with a configuration file until it exits by itself. */
async function run(
  test: AfterTest,
  config: unknown,
  args: readonly string[] = [],
): Promise<{ code: number | null; output: string }> {
  const file = join(await tempDir(test), "entrepot.yaml");
  await writeFile(file, JSON.stringify(config));
  const child = new Child(test, {
    command: process.execPath,
    args: [MAIN, "serve", "--config", file, ...args],
  });
  const { code } = await child.exited;
  return { code, output: child.output() };
}

void describe("entrepot serve", () => {
  void it("exits with 2 and prints every fault of the configuration", async (test) => {
    const { code, output } = await run(test, { listen: "nowhere", colour: 1 });
    assert.equal(code, 2);
    assert.match(output, /entrepot\.yaml:1: listen: /);
    assert.match(output, /entrepot\.yaml:1: colour: /);
  });

  void it("exits with 2 for an unknown option", async (test) => {
    const { code, output } = await run(test, {}, ["--onlien"]);
    assert.equal(code, 2);
    assert.match(output, /--onlien/);
  });

  void it("writes a pretty log without colours if it is not a terminal, also with FORCE_COLOR", async (test) => {
    const file = join(await tempDir(test), "entrepot.yaml");
    const free = "127.0.0.1:0";
    const config = {
      listen: free,
      operator: { listen: free },
      storage: { root: join(await tempDir(test), "data") },
      log: { format: "pretty" },
    };
    await writeFile(file, JSON.stringify(config));
    const child = new Child(test, {
      command: process.execPath,
      args: [MAIN, "serve", "--config", file],
      env: { FORCE_COLOR: "1", NO_COLOR: undefined },
    });
    const line = await child.line((text) =>
      text.includes("the mirror is listening") ? text : undefined,
    );
    assert.ok(!line.includes("\u001B"), line);
    await child.terminate();
  });

  void it("exits with 2 if an address is in use, naming its key and the likely cause", async (test) => {
    const mirror = await ChildMirror.start(test);
    const free = "127.0.0.1:0";
    const taken = `got ${mirror.host}; expected a free port; another process listens on this one (EADDRINUSE)`;
    const rows = [
      { listen: mirror.host, operator: free, key: "listen" },
      { listen: [free, mirror.host], operator: free, key: "listen[1]" },
      { listen: free, operator: mirror.host, key: "operator.listen" },
    ];
    for (const { listen, operator, key } of rows) {
      const { code, output } = await run(test, {
        listen,
        operator: { listen: operator },
        storage: { root: join(await tempDir(test), "data") },
      });
      assert.ok(
        output.split("\n").includes(`entrepot: ${key}: ${taken}`),
        output,
      );
      assert.equal(code, 2);
    }
  });

  void it("exits with 2 if the host of an address does not resolve or belongs to another machine", async (test) => {
    const rows = [
      [
        "nowhere.invalid:5000",
        /^entrepot: operator\.listen: got nowhere\.invalid:5000; expected a name that resolves\b.* \((?:ENOTFOUND|EAI_AGAIN|ETIMEDOUT)\)$/m,
      ],
      [
        "192.0.2.1:5000",
        /^entrepot: operator\.listen: got 192\.0\.2\.1:5000; expected an address of this machine \(EADDRNOTAVAIL\)$/m,
      ],
    ] as const;
    for (const [listen, words] of rows) {
      const { code, output } = await run(test, {
        listen: "127.0.0.1:0",
        operator: { listen },
        storage: { root: join(await tempDir(test), "data") },
      });
      assert.match(output, words);
      assert.equal(code, 2);
    }
  });

  void it("exits with 1 if another instance holds the storage, naming its process", async (test) => {
    const mirror = await ChildMirror.start(test);
    const { code, output } = await run(test, {
      listen: "127.0.0.1:0",
      operator: { listen: false },
      storage: { root: mirror.root },
    });
    assert.equal(code, 1);
    assert.match(output, new RegExp(String(mirror.child.pid)));
  });

  void it("connects to no upstream with --offline", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
      args: ["--offline"],
    });
    const response = await rawRequest({
      port: mirror.port,
      path: "/v2/library/app/manifests/1",
    });
    assert.equal(response.status, 404);
    assert.match(response.body.toString(), /"detail":"offline"/);
    assert.equal(upstream.count(), 0);
  });
});

async function receivedBytes(mirror: ChildMirror): Promise<number> {
  const series = /^entrepot_upstream_received_bytes_total\{.*\} (\d+)$/m;
  return Number(series.exec(await mirror.metrics())?.[1] ?? 0);
}

void describe("SIGTERM", () => {
  void it("finishes a running download, refuses new ones and exits with 0", async (test) => {
    const blob = seededBlob("drain", 4 * MIB);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: MIB, barrier } });
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const download = startRequest({
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    });
    await download.received(MIB / 2);
    const ended = mirror.terminate();
    await mirror.child.line((line) => line.includes("draining") || undefined);
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.equal(ready.status, 503);
    barrier.release();
    const response = await download.response;
    assert.equal(response.end, "complete");
    assert.equal(response.sha256, blob.digest);
    assert.equal((await ended).code, 0);
  });

  void it("keeps the bytes of a download without readers, and exits immediately", async (test) => {
    const blob = seededBlob("keep", 4 * MIB);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob" },
      { hold: { at: 2 * MIB, barrier } },
      { times: 1 },
    );
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    await rawRequest({ ...request, leave: { atByte: MIB, by: "fin" } });
    // Until the mirror has received all that the upstream sends before the barrier.
    for (let left = 1_000; (await receivedBytes(mirror)) < 2 * MIB; left -= 1) {
      assert.notEqual(left, 0);
      await delay(10);
    }
    const layout = diskLayout(mirror.root);
    // Far below the 30 s of a drain, so that a regression fails the test.
    assert.equal((await mirror.terminate(10_000)).code, 0);
    assert.deepEqual(
      (await readdir(join(mirror.root, "partial"))).filter((name) =>
        name.startsWith("sha256"),
      ),
      [basename(layout.partialFile(blob.digest, "docker.io"))],
    );
    barrier.release();
    upstream.forgetRequests();
    await mirror.start();
    const response = await rawRequest(request);
    assert.equal(response.sha256, blob.digest);
    assert.ok(upstream.bytesSent({ kind: "blob" }) <= 2.5 * MIB);
  });
});
