import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { buildImage, buildMultiArch } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

const BY_NAME = buildImage({ seed: "by name", layers: [70_000, 300] });
const INDEX = buildMultiArch({ seed: "index by name" });
const OLD = buildImage({ seed: "old", layers: [80_000] });
const NEW = buildImage({ seed: "new", layers: [90_000] });

/** Returns the last line of each reference of the journal: its digest, or that it was removed. */
async function journal(mirror: TestMirror): Promise<Map<string, unknown>> {
  const text = await readFile(join(mirror.root, "roots.jsonl"), "utf8");
  return new Map(
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith('{"complete"'))
      .map((line) => {
        const { ref, digest } = JSON.parse(line) as Record<string, unknown>;
        return [String(ref), digest];
      }),
  );
}

async function start(test: Parameters<typeof startMirror>[0]) {
  const a = await ScriptedUpstream.start(test);
  const b = await ScriptedUpstream.start(test);
  a.content.addImage("app", BY_NAME, "v");
  b.content.addIndex("tools", INDEX, "v");
  b.content.addImage("moved", OLD, "v");
  const mirror = await startMirror(test, [
    upstreamOf(a, { name: "a.test", isDefault: true }),
    upstreamOf(b, { name: "b.test", isDefault: false }),
  ]);
  return { a, b, mirror };
}

void describe("an index that is lost while the upstreams are not available", () => {
  void it("is rebuilt with digests that were pulled directly, and old digests of moved tags", async (test) => {
    const { a, b, mirror } = await start(test);
    await pullImage(mirror, "a.test/app", BY_NAME.manifest.digest);
    await pullImage(mirror, "b.test/tools", INDEX.manifest.digest);
    await pullImage(mirror, "b.test/moved", "v");
    b.content.addImage("moved", NEW, "v");
    mirror.clock.advance(3_600_000);
    await pullImage(mirror, "b.test/moved", "v");
    await mirror.close();
    await rm(join(mirror.root, "index.sqlite"));
    a.forgetRequests();
    b.forgetRequests();
    // Sent immediately: the requests wait for the rebuild.
    await mirror.restart({ offline: true });
    for (const [repository, reference] of [
      ["a.test/app", BY_NAME.manifest.digest],
      ["b.test/tools", INDEX.manifest.digest],
      ["b.test/moved", OLD.manifest.digest],
      ["b.test/moved", "v"],
    ] as const) {
      await pullImage(mirror, repository, reference);
    }
    // Links are per repository, before the loss and after it.
    const foreign = await mirror.get(
      `/v2/b.test/moved/manifests/${BY_NAME.manifest.digest}`,
    );
    assert.equal(foreign.status, 404);
    assert.equal(a.requests.length + b.requests.length, 0);
  });

  void it("needs one journal line per tagged image, and none for the children of an index", async (test) => {
    const { mirror } = await start(test);
    await pullImage(mirror, "a.test/app", "v");
    await pullImage(mirror, "b.test/tools", "v");
    await mirror.close();
    assert.deepEqual(
      await journal(mirror),
      new Map([
        ["a.test/app:v", BY_NAME.manifest.digest],
        ["b.test/tools:v", INDEX.manifest.digest],
      ]),
    );
  });

  void it("does not restore images that were removed by name", async (test) => {
    const { mirror } = await start(test);
    const { digest } = BY_NAME.manifest;
    await pullImage(mirror, "a.test/app", digest);
    const removed = await mirror.operate(
      "DELETE",
      `/images/a.test/app@${digest}`,
    );
    assert.equal(removed.status, 200);
    await mirror.close();
    assert.deepEqual(
      await journal(mirror),
      new Map([[`a.test/app@${digest}`, null]]),
    );
  });
});
