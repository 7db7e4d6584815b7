import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { afterSuite } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { Buildah } from "../support/engines/buildah.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { PartialPodman } from "../support/engines/partial-podman.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { seededBytes } from "../support/seeded-bytes.ts";
import { tempDir } from "../support/temp-dir.ts";

const FILES = 400;
const FILE_BYTES = 20_000;
/** One in so many files of the second image differs from the first image's. */
const CHANGED_EVERY = 10;
const REPOSITORY = "library/chunked";

interface Layer {
  readonly digest: string;
  readonly size: number;
}

/** The bytes of a file of an image. */
function fileOf(image: number, file: number): Buffer {
  const isChanged = image > 1 && file % CHANGED_EVERY === 0;
  return seededBytes(`${isChanged ? image : 1} ${file}`, FILE_BYTES).read(
    0,
    FILE_BYTES,
  );
}

void describe("podman with partial pulls", () => {
  const suite = afterSuite();
  let registry: RealRegistry;

  before(async () => {
    await requireCommands(["podman", "buildah", "docker-registry"]);
    registry = await RealRegistry.start(suite);
    const dir = await tempDir(suite, "chunked-");
    const builder = await Buildah.start(suite);
    for (const image of [1, 2]) {
      const folder = join(dir, `${image}`);
      await mkdir(folder);
      for (let file = 0; file < FILES; file++) {
        await writeFile(join(folder, `f${file}`), fileOf(image, file));
      }
      const name = `build-${image}`;
      for (const line of [
        `from --name=${name} scratch`,
        `add ${name} ${folder} /`,
        `commit --rm ${name} image-${image}`,
        "push --tls-verify=false --format=oci --compression-format=zstd:chunked " +
          `image-${image} docker://${registry.host}/${REPOSITORY}:${image}`,
      ]) {
        await builder.buildah(...line.split(" "));
      }
    }
  });

  void it("fetches only the files that it lacks, from a cold and from a stored layer", async (test) => {
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(registry.origin),
    });
    const podman = await PartialPodman.start(test, mirror);
    const [first, second] = [
      await layerOf(mirror, 1),
      await layerOf(mirror, 2),
    ];
    for (const kind of ["cold", "stored"]) {
      const servedBefore = served(mirror, second);
      await podman.pull(nameOf(1));
      await podman.pull(nameOf(2));
      for (const image of [1, 2]) {
        await podman.mounted(nameOf(image), (folder) =>
          assertIsImage(folder, image),
        );
      }
      assert.ok(served(mirror, first).parts > 0);
      // Its table of contents, then the files.
      const { bytes } = await logged(mirror, second, servedBefore.parts + 2);
      const fetched = bytes - servedBefore.bytes;
      test.diagnostic(
        `${kind}: ${fetched} of ${second.size} bytes of the second layer`,
      );
      assert.ok(fetched < second.size / 5, `${fetched} of ${second.size}`);
      await podman.empty();
    }
    const whole = await fetch(
      `${mirror.origin}/v2/${REPOSITORY}/blobs/${second.digest}`,
    );
    assert.match(whole.headers.get("cache-status") ?? "", /^entrepot; hit/);
    assert.equal((await whole.arrayBuffer()).byteLength, second.size);
  });
});

function nameOf(image: number): string {
  return `docker.io/${REPOSITORY}:${image}`;
}

async function layerOf(mirror: ChildMirror, image: number): Promise<Layer> {
  const answer = await fetch(
    `${mirror.origin}/v2/${REPOSITORY}/manifests/${image}`,
  );
  const { layers } = (await answer.json()) as { layers: readonly Layer[] };
  assert.equal(layers.length, 1);
  const [layer] = layers;
  assert.ok(layer);
  return layer;
}

/** Bytes of a layer that the mirror has sent so far, and the number of 206 answers. */
function served(
  mirror: ChildMirror,
  { digest }: Layer,
): { readonly bytes: number; readonly parts: number } {
  const requests = mirror.logs.filter(
    ({ msg, reference }) => msg === "request" && reference === digest,
  );
  return {
    bytes: requests.reduce((sum, { sizeBytes }) => sum + Number(sizeBytes), 0),
    parts: requests.filter(({ statusCode }) => statusCode === 206).length,
  };
}

/** Returns the same after the log, which is written later, has so many 206 answers. */
async function logged(
  mirror: ChildMirror,
  layer: Layer,
  parts: number,
): Promise<ReturnType<typeof served>> {
  const endMs = performance.now() + 10_000;
  for (;;) {
    const now = served(mirror, layer);
    if (now.parts >= parts) return now;
    assert.ok(performance.now() < endMs, JSON.stringify(now));
    await delay(20);
  }
}

async function assertIsImage(folder: string, image: number): Promise<void> {
  const names = await readdir(folder);
  assert.equal(names.filter((name) => name.startsWith("f")).length, FILES);
  for (let file = 0; file < FILES; file++) {
    const bytes = await readFile(join(folder, `f${file}`));
    assert.ok(bytes.equals(fileOf(image, file)), `f${file} of ${image}`);
  }
}
