import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../src/config/config.ts";
import { buildImage, type TestImage } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import type { RawResponse } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import type { AfterTest } from "../support/temp-dir.ts";
import { soakFactor } from "../support/soak.ts";

/*
 * A private registry whose images are cached, and requests to another upstream for the same digests
 * and tags. That upstream answers 200 to every HEAD and has nothing, or it has them all.
 */
const IMAGES: readonly TestImage[] = Array.from(
  { length: 200 * soakFactor(0.1) },
  (_, at) => buildImage({ seed: `foreign ${at}`, layers: [50_000] }),
);

interface Paths {
  readonly manifests: readonly string[];
  readonly blobs: readonly string[];
  readonly tags: readonly string[];
}

const PATHS: Paths = {
  manifests: IMAGES.map(({ manifest }) => `manifests/${manifest.digest}`),
  blobs: IMAGES.flatMap(({ blobs }) =>
    blobs.map(({ digest }) => `blobs/${digest}`),
  ),
  tags: IMAGES.map((_, at) => `manifests/v${at}`),
};

async function setUp(test: AfterTest): Promise<{
  owner: ScriptedUpstream;
  other: ScriptedUpstream;
  mirror: TestMirror;
}> {
  const owner = await ScriptedUpstream.start(test);
  const other = await ScriptedUpstream.start(test);
  const credentials = [{ username: "u", password: new Secret("p") }];
  const mirror = await startMirror(test, [
    upstreamOf(owner, { name: "owner.example", credentials }),
    upstreamOf(other, { name: "other.example", isDefault: false }),
  ]);
  for (const [at, image] of IMAGES.entries()) {
    owner.content.addImage("a", image, `v${at}`);
    await pullImage(mirror, "owner.example/a", `v${at}`);
  }
  owner.forgetRequests();
  return { owner, other, mirror };
}

/** Counts answers with content. */
function served(answers: readonly RawResponse[]): number {
  return answers.filter(({ status }) => status === 200 || status === 206)
    .length;
}

void describe("the content of a private registry", () => {
  void it("is not served through another upstream that answers 200 to every HEAD", async (test) => {
    const { owner, other, mirror } = await setUp(test);
    other.when({ method: "HEAD" }, ({ reference }) => {
      const at = /^v(\d+)$/.exec(reference ?? "")?.[1];
      const named = at === undefined ? undefined : IMAGES[Number(at)];
      return {
        status: 200,
        contentLength: named?.manifest.sizeBytes ?? 1,
        headers: {
          "content-type": "application/vnd.oci.image.manifest.v1+json",
          "docker-content-digest": named?.manifest.digest ?? reference,
        },
      };
    });
    const opened: Record<string, string> = {};
    for (const [kind, paths] of Object.entries(PATHS) as [
      string,
      readonly string[],
    ][]) {
      const answers: RawResponse[] = [];
      for (const path of paths) {
        const target = `/v2/other.example/a/${path}`;
        answers.push(await mirror.get(target));
        answers.push(await mirror.get(target, { Range: "bytes=0-99" }));
      }
      opened[kind] = `${served(answers)} of ${answers.length}`;
    }
    test.diagnostic(JSON.stringify(opened));
    assert.deepEqual(opened, {
      manifests: `0 of ${PATHS.manifests.length * 2}`,
      blobs: `0 of ${PATHS.blobs.length * 2}`,
      tags: `0 of ${PATHS.tags.length * 2}`,
    });
    assert.equal(owner.count(), 0);
  });

  void it("stays a hit while the same content of another upstream is filled", async (test) => {
    const { owner, other, mirror } = await setUp(test);
    for (const [at, image] of IMAGES.entries()) {
      other.content.addImage("a", image, `v${at}`);
    }
    // Each download takes long enough to overlap with the other upstream's hits.
    other.when({ kind: "blob" }, { bytesPerSecond: 200_000 });
    let wrong = 0;
    await Promise.all(
      IMAGES.map(async ({ manifest, layers: [layer] }, at) => {
        const filled = pullImage(mirror, "other.example/a", `v${at}`);
        for (const [path, digest] of [
          [`manifests/v${at}`, manifest.digest],
          [`blobs/${layer?.digest}`, layer?.digest],
          [`blobs/${layer?.digest}`, layer?.digest],
        ]) {
          const got = await mirror.get(`/v2/owner.example/a/${path}`);
          if (got.status !== 200 || got.sha256 !== digest) wrong += 1;
        }
        await filled;
      }),
    );
    const downloads = other.count({ kind: "blob", method: "GET" });
    test.diagnostic(
      `wrong answers ${wrong}; asked of the owner ${owner.count()}; downloads from the other ${downloads} of ${PATHS.blobs.length}`,
    );
    assert.deepEqual(
      [wrong, owner.count(), downloads],
      [0, 0, PATHS.blobs.length],
    );
  });
});
