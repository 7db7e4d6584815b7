import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { digestOf } from "../../src/oci/digest.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { HostedClient } from "../support/hosted-client.ts";
import { buildImage, type TestImage } from "../support/image-builder.ts";
import { seededRandom } from "../support/random.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { chooseSeed } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const KIB = 1024;
const BASES = 16;
const CLIENTS = 12;
const PUSHES_EACH = Math.ceil(200 * soakFactor(0.1));
const BASE = "library/base";

/** Holds a quarter of the bases, so that most of them are evicted between two pulls. */
const MAX_SIZE = "1200KiB";

interface Tally {
  mounted: number;
  uploaded: number;
}

/** Pulls a base through the mirror, then pushes an image that is built on it, and pulls that. */
async function pushOnBase(
  port: number,
  base: TestImage,
  number: number,
  tally: Tally,
): Promise<void> {
  const mirrored = new HostedClient(port, `docker.io/${BASE}`);
  const hosted = new HostedClient(port, `local/team/app-${number % 3}`);
  for (const { digest } of base.blobs) {
    const { status } = await mirrored.get(`blobs/${digest}`);
    assert.equal(status, 200);
  }
  const image = buildImage({
    seed: `on base ${number}`,
    layers: [...base.layers, 100],
  });
  for (const blob of image.blobs) {
    if ((await hosted.head(`blobs/${blob.digest}`)).status === 200) continue;
    const mount = await hosted.ask(
      "POST",
      `blobs/uploads/?mount=${blob.digest}&from=docker.io/${BASE}`,
    );
    if (mount.status === 201) {
      tally.mounted += 1;
      continue;
    }
    assert.equal(mount.status, 202, mount.body.toString());
    // As containers/image does; an open one would count for limits.uploads.
    const session = mount.headers.get("location")?.split("/").at(-1);
    const ended = await hosted.delete(`blobs/uploads/${session}`);
    assert.equal(ended.status, 204);
    const pushed = await hosted.putBlob(blob);
    assert.equal(pushed.status, 201, pushed.body.toString());
    tally.uploaded += 1;
  }
  const put = await hosted.putManifest(image.manifest, `t${number}`);
  assert.equal(put.status, 201, put.body.toString());
  for (const { digest } of image.blobs) {
    const { status, body } = await hosted.get(`blobs/${digest}`);
    assert.equal(status, 200);
    assert.equal(digestOf(body), digest);
  }
  const { status } = await hosted.delete(`manifests/${image.manifest.digest}`);
  assert.equal(status, 202);
}

void describe("blobs that are mounted while the mirror evicts them", () => {
  void it("are in the hosted repository, or are uploaded, and no manifest is refused", async (test) => {
    const seed = chooseSeed();
    test.diagnostic(`seed ${seed}`);
    const random = seededRandom(seed);
    const upstream = await ScriptedUpstream.start(test);
    const bases = Array.from({ length: BASES }, (_, number) =>
      buildImage({ seed: `base ${number}`, layers: [200 * KIB, 100 * KIB] }),
    );
    for (const [number, base] of bases.entries())
      upstream.content.addImage(BASE, base, `v${number}`);
    const mirror = await ChildMirror.start(test, {
      config: {
        upstreams: {
          "docker.io": { default: true, endpoints: [upstream.origin] },
        },
        eviction: { maxSize: MAX_SIZE },
      },
    });
    const tally = { mounted: 0, uploaded: 0 };
    await Promise.all(
      Array.from({ length: CLIENTS }, async (_, client) => {
        for (let count = 0; count < PUSHES_EACH; count += 1) {
          const base = bases[Math.floor(random() * BASES)];
          assert.ok(base);
          await pushOnBase(
            mirror.port,
            base,
            client * PUSHES_EACH + count,
            tally,
          );
        }
      }),
    );
    test.diagnostic(JSON.stringify(tally));
    assert.ok(tally.mounted > 0 && tally.uploaded > 0);
    const evicted = mirror.logs.filter(
      ({ msg }) => msg === "evicted an image from the cache",
    );
    test.diagnostic(`${evicted.length} evictions`);
    assert.ok(evicted.length > 0);
    const errors = mirror.logs.filter(({ level }) => level === "error");
    assert.deepEqual(errors, []);
  });
});
