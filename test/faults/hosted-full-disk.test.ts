import assert from "node:assert/strict";
import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { digestOf } from "../../src/oci/digest.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { locationOf, PushClient } from "../support/push-client.ts";
import { seededBytes } from "../support/seeded-bytes.ts";
import { tempDir } from "../support/temp-dir.ts";
import { Tmpfs } from "../support/tmpfs.ts";

const MIB = 1024 * 1024;
const BIG = seededBytes("too big", 48 * MIB).read(0, 48 * MIB);
const SMALL = seededBytes("fits", 2 * MIB).read(0, 2 * MIB);

async function partialsOf(root: string): Promise<string[]> {
  const names = await readdir(join(root, "partial"));
  return names.filter((name) => name !== "boot-id");
}

/** Repeats a request until it is answered with that status. */
async function until(
  status: number,
  send: () => Promise<number>,
): Promise<void> {
  for (let left = 200; (await send()) !== status; left--) {
    assert(left > 0, `never answered ${status}`);
    await delay(100);
  }
}

void describe("a full disk, for pushes", () => {
  void it("refuses a blob with 507 and leaves nothing of it, with and without a known length", async (test) => {
    const disk = await Tmpfs.mount(test, "size=40m");
    const root = join(disk.path, "data");
    const mirror = await ChildMirror.start(test, {
      config: { storage: { root }, eviction: { minFree: "0B" } },
    });
    const client = new PushClient(test, mirror.port);
    for (const chunkBytes of [undefined, 256 * 1024]) {
      const location = await client.begin("local/app");
      const answer = await client.send("PATCH", location, {
        body: BIG,
        ...(chunkBytes === undefined ? {} : { chunkBytes }),
      });
      assert.equal(answer.status, 507, answer.text);
      assert.equal(answer.code, "UNAVAILABLE");
      assert.equal((await client.send("GET", location)).status, 404);
      assert.deepEqual(await partialsOf(root), []);
    }
    const digest = digestOf(SMALL);
    const pushed = await client.push("local/app", digest, SMALL);
    assert.equal(pushed.status, 201, pushed.text);
    assert.deepEqual(await readdir(join(root, "blobs", "sha256")), [
      digest.slice("sha256:".length),
    ]);
  });
});

void describe("a storage root that is moved away, for pushes", () => {
  void it("is answered 503, and uploads go on when it is back", async (test) => {
    const folder = await tempDir(test);
    const [root, moved] = [join(folder, "data"), join(folder, "moved")];
    const mirror = await ChildMirror.start(test, {
      config: { storage: { root }, eviction: { minFree: "0B" } },
    });
    const client = new PushClient(test, mirror.port);
    const location = await client.begin("local/app");
    const half = SMALL.subarray(0, MIB);
    const first = await client.send("PATCH", location, { body: half });
    assert.equal(first.status, 202, first.text);
    await rename(root, moved);
    await until(503, async () => {
      const path = "/v2/local/app/blobs/uploads/";
      return (await client.send("POST", path)).status;
    });
    const rest = {
      body: SMALL.subarray(MIB),
      headers: { "Content-Range": `${MIB}-${SMALL.length - 1}` },
    };
    const away = await client.send("PATCH", location, rest);
    assert.equal(away.status, 503, away.text);
    assert.match(away.headers["retry-after"] ?? "", /^\d+$/);
    await rename(moved, root);
    await until(202, async () => {
      return (await client.send("PATCH", location, rest)).status;
    });
    const digest = digestOf(SMALL);
    const done = await client.finish(location, digest);
    assert.equal(done.status, 201, done.text);
    const pulled = await fetch(
      `http://127.0.0.1:${mirror.port}${locationOf(done)}`,
    );
    assert.deepEqual(Buffer.from(await pulled.arrayBuffer()), SMALL);
    assert.deepEqual(await partialsOf(root), []);
  });
});
