import assert from "node:assert/strict";
import { before, describe, it, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { ImageDetail } from "../../src/images/images.ts";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { Buildah } from "../support/engines/buildah.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
  type PublishedImage,
  type PublishedImages,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import {
  type Engine,
  type MirrorAddress,
  requireCommands,
} from "../support/engines/engine.ts";
import { Podman } from "../support/engines/podman.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { type LoggedRequest, RealRegistry } from "../support/real-registry.ts";

const COMMANDS = [
  "dockerd",
  "docker",
  "containerd",
  "ctr",
  "runc",
  "podman",
  "buildah",
  "skopeo",
  "docker-registry",
  "tar",
];

/** Requests besides the blobs: ping, HEAD of the tag, two manifests, and one more. */
const REQUESTS_BESIDE_BLOBS = 5;
/** Manifest and config of the platform that no engine here requests. */
const BACKGROUND_REQUESTS = 2;

interface EngineCase {
  readonly name: string;
  start(test: AfterTest, mirror: MirrorAddress): Promise<Engine>;
  /** dockerd 20.10 cannot unpack zstd. */
  readonly kinds: readonly (keyof PublishedImages)[];
  /** Name prefix for images of another registry that are pulled through the same mirror. */
  nameOfQuay(mirror: MirrorAddress): string;
}

const ENGINES: readonly EngineCase[] = [
  {
    name: "dockerd with registry-mirrors",
    start: (test, mirror) => Dockerd.start(test, mirror),
    kinds: ["docker", "multiArch"],
    // Its mirrors serve Docker Hub only; images of other registries are pulled by the mirror's name.
    nameOfQuay: (mirror) => `${mirror.host}/quay.io`,
  },
  {
    name: "containerd with hosts.toml",
    start: (test, mirror) => Containerd.start(test, mirror),
    kinds: ["docker", "multiArch", "zstd"],
    nameOfQuay: () => "quay.io",
  },
  {
    name: "podman with registries.conf",
    start: (test, mirror) => Podman.start(test, mirror),
    kinds: ["docker", "multiArch", "zstd"],
    nameOfQuay: () => "quay.io",
  },
  {
    name: "buildah with registries.conf",
    start: (test, mirror) => Buildah.start(test, mirror),
    kinds: ["docker", "multiArch", "zstd"],
    nameOfQuay: () => "quay.io",
  },
];

void describe("real engines", () => {
  const suite = afterSuite();
  let published: RealRegistry;
  let images: PublishedImages;

  before(async () => {
    await requireCommands(COMMANDS);
    published = await RealRegistry.start(suite);
    images = await publishBusyboxImages(suite, published);
    assert.match(images.zstd.layerMediaTypes.join(), /tar\+zstd$/);
  });

  for (const engineCase of ENGINES) {
    void it(`${engineCase.name} pulls and runs through the mirror, then without upstream after a restart`, async (test) => {
      const upstream = await RealRegistry.start(test, {
        sharedWith: published,
      });
      const mirror = await startMirror(test, upstream);
      const engine = await engineCase.start(test, mirror);
      const wanted = engineCase.kinds.map((kind) => images[kind]);
      const references = wanted.map(
        (image) => [`docker.io/${nameOf(image)}`, image] as const,
      );

      let boundRequests = 0;
      for (const [reference, image] of references) {
        await pullsAndRuns(engine, reference, image);
        boundRequests += image.blobCount + REQUESTS_BESIDE_BLOBS;
      }
      await childrenFetched(mirror, `docker.io/${nameOf(images.multiArch)}`);
      boundRequests += BACKGROUND_REQUESTS;
      const cold = await upstream.requests();
      assert.ok(cold.length > 0 && cold.length <= boundRequests, linesOf(cold));
      assert.equal(new Set(cold.map(lineOf)).size, cold.length, linesOf(cold));

      await engine.empty();
      for (const [reference, image] of references) {
        await pullsAndRuns(engine, reference, image);
      }
      const warm = await upstream.requests();
      assert.equal(warm.length, cold.length, linesOf(warm));

      await pullsAndRuns(
        engine,
        `${engineCase.nameOfQuay(mirror)}/${nameOf(images.docker)}`,
        images.docker,
      );
      if (engine instanceof Containerd) await isByteForByte(engine);

      await upstream.stop();
      await mirror.restart();
      await engine.empty();
      for (const [reference, image] of references) {
        await pullsAndRuns(engine, reference, image);
      }
    });
  }

  void it("skopeo copies every byte of every platform through the mirror, then without upstream after a restart", async (test) => {
    const upstream = await RealRegistry.start(test, { sharedWith: published });
    const mirror = await startMirror(test, upstream);
    const skopeo = await Skopeo.start(test, mirror);
    const copies = async (): Promise<void> => {
      for (const image of Object.values(images) as PublishedImage[]) {
        const copy = await skopeo.copyAll(`docker.io/${nameOf(image)}`);
        assert.equal(copy.digest, image.digest);
        const named = copy.files.filter(({ name }) =>
          /^[a-f0-9]{64}/.test(name),
        );
        assert.ok(named.length >= image.blobCount);
        for (const { name, digest } of named) {
          assert.equal(digest, `sha256:${name.slice(0, 64)}`);
        }
      }
    };
    await copies();
    const cold = await upstream.requests();
    await copies();
    assert.equal((await upstream.requests()).length, cold.length);
    await upstream.stop();
    await mirror.restart();
    await copies();
  });
});

async function startMirror(
  test: TestContext,
  upstream: RealRegistry,
): Promise<ChildMirror> {
  const mirror = await ChildMirror.start(test, {
    config: {
      upstreams: {
        "docker.io": { default: true, endpoints: [upstream.origin] },
        "quay.io": { endpoints: [upstream.origin] },
      },
    },
  });
  test.after(() => {
    if (!test.passed) test.diagnostic(mirror.child.output());
  });
  return mirror;
}

/** Resolves when the mirror has fetched both manifests of an index and their configs in the background. */
async function childrenFetched(
  mirror: ChildMirror,
  reference: string,
): Promise<void> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    const answer = await fetch(
      `${mirror.operatorOrigin}/api/v1/images/${reference}`,
    );
    const { graph } = (await answer.json()) as Pick<ImageDetail, "graph">;
    const stored = graph.filter((part) => part.stored);
    const count = (kind: string): number =>
      stored.filter((part) => part.kind === kind).length;
    if (count("manifest") === 3 && count("config") === 2) return;
    assert.ok(performance.now() < untilMs, JSON.stringify(graph));
    await delay(50);
  }
}

/** Checks that the digest is the pushed one and that the container reads the whole payload. */
async function pullsAndRuns(
  engine: Engine,
  reference: string,
  image: PublishedImage,
): Promise<void> {
  const digests = await engine.pull(reference);
  assert.ok(
    digests.includes(image.digest),
    `${digests.join()} for ${reference}`,
  );
  assert.equal(
    await engine.run(reference, PAYLOAD_COMMAND),
    `${PAYLOAD_SHA256}  /payload.bin\n`,
  );
}

async function isByteForByte(engine: Containerd): Promise<void> {
  const contents = await engine.contents();
  assert.ok(contents.length > 0);
  for (const { name, digest } of contents) assert.equal(digest, name);
}

function nameOf(image: PublishedImage): string {
  return `${image.repository}:${image.tag}`;
}

function linesOf(requests: readonly LoggedRequest[]): string {
  return requests.map(lineOf).join("\n");
}

function lineOf(request: LoggedRequest): string {
  return `${request.method} ${request.target}`;
}
