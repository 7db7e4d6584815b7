import assert from "node:assert/strict";
import { readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { before, describe, it } from "node:test";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
  type PublishedImage,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import {
  type Engine,
  type MirrorAddress,
  requireCommands,
} from "../support/engines/engine.ts";
import { Podman } from "../support/engines/podman.ts";
import { RealRegistry } from "../support/real-registry.ts";

/** Engines whose first attempt may receive wrong bytes, which they discard. */
const MAX_ATTEMPTS = 3;

interface EngineCase {
  readonly name: string;
  readonly start: (test: AfterTest, mirror: MirrorAddress) => Promise<Engine>;
  /** Whether the file's time changes; a disk that flips a bit leaves it unchanged. */
  readonly isTold: boolean;
}

const startPodman: EngineCase["start"] = (test, mirror) =>
  Podman.start(test, mirror);

const ENGINES: readonly EngineCase[] = [
  { name: "podman", start: startPodman, isTold: false },
  { name: "podman, at its first attempt", start: startPodman, isTold: true },
  {
    name: "dockerd",
    start: (test, mirror) => Dockerd.start(test, mirror),
    isTold: false,
  },
  {
    // containerd keeps complete content for a day and does not request it again.
    name: "containerd, at its first attempt",
    start: (test, mirror) => Containerd.start(test, mirror),
    isTold: true,
  },
];

void describe("a layer that rotted in the mirror's storage", () => {
  const suite = afterSuite();
  let registry: RealRegistry;
  let image: PublishedImage;

  before(async () => {
    await requireCommands([
      "dockerd",
      "containerd",
      "ctr",
      "podman",
      "buildah",
      "docker-registry",
    ]);
    registry = await RealRegistry.start(suite);
    image = (await publishBusyboxImages(suite, registry)).docker;
  });

  for (const { name, start, isTold } of ENGINES) {
    const attempts = isTold ? 1 : MAX_ATTEMPTS;
    void it(`is right for ${name} (within ${attempts})`, async (test) => {
      const mirror = await ChildMirror.start(test, {
        config: hubConfig(registry.origin),
      });
      const engine = await start(test, mirror);
      const reference = `docker.io/${image.repository}:${image.tag}`;
      await engine.pull(reference);
      const layer = await layerOf(mirror, image);
      await mirror.terminate();
      rot(mirror, layer, isTold);
      await mirror.start();
      await engine.empty();
      const failures: string[] = [];
      for (;;) {
        try {
          await engine.pull(reference);
          break;
        } catch (error) {
          failures.push(String(error));
          assert.ok(failures.length < attempts, failures.join("\n"));
        }
      }
      test.diagnostic(`${failures.length} attempts failed`);
      assert.equal(
        await engine.run(reference, PAYLOAD_COMMAND),
        `${PAYLOAD_SHA256}  /payload.bin\n`,
      );
      const findings = mirror.logs.filter(
        ({ msg }) => msg === "scrub found faulty content",
      );
      assert.deepEqual(
        findings.map(({ code, digest }) => [code, digest]),
        [["blob-corrupt", layer]],
      );
      // The wrong bytes are removed, so that the next engine's pull succeeds immediately.
      await engine.empty();
      await engine.pull(reference);
    });
  }
});

/** The digest of the largest layer. */
async function layerOf(
  mirror: ChildMirror,
  { repository, digest }: PublishedImage,
): Promise<string> {
  const answer = await fetch(
    `${mirror.origin}/v2/${repository}/manifests/${digest}`,
  );
  const { layers } = (await answer.json()) as {
    readonly layers: readonly {
      readonly digest: string;
      readonly size: number;
    }[];
  };
  return layers.toSorted((a, b) => b.size - a.size)[0]?.digest ?? "";
}

/** Changes one byte and keeps the size. */
function rot(mirror: ChildMirror, layer: string, isTold: boolean): void {
  const digest = parseDigest(layer);
  assert.ok(digest !== undefined);
  const file = diskLayout(mirror.root).blobFile(digest);
  const { atime, mtime } = statSync(file);
  const bytes = readFileSync(file);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  if (!isTold) utimesSync(file, atime, mtime);
}
