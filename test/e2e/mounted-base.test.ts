import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it, type TestContext } from "node:test";
import { afterSuite, type AfterTest } from "../support/after-test.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { Buildah } from "../support/engines/buildah.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { Podman } from "../support/engines/podman.ts";
import { INSTALLED, type Programs } from "../support/engines/programs.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { tempDir } from "../support/temp-dir.ts";

const LAYER_BYTES = 200_000;
const BASE_LAYERS = 15;
const OWN_LAYERS = 5;
/** Configurations and the headers of archives. */
const MAX_OVERHEAD = 60_000;

await requireCommands([
  "dockerd",
  "docker",
  "podman",
  "buildah",
  "skopeo",
  "docker-registry",
]);
const newer = await fetchNewerClients();

/** A client that builds on a base image and pushes the result. */
interface BuildCase {
  readonly name: string;
  /** How many layers it uploads if the base was pulled by its mirrors' configuration. */
  readonly uploadsByMirror: number;
  readonly start: (test: AfterTest, mirror: ChildMirror) => Promise<Builder>;
}

interface Builder {
  pull(reference: string): Promise<unknown>;
  build(folder: string, tag: string): Promise<unknown>;
  push(reference: string): Promise<unknown>;
}

function dockerd(programs: Programs, hasContainerdStore: boolean): BuildCase {
  return {
    name: `dockerd, ${programs.name}${hasContainerdStore ? ", with the containerd image store" : ""}`,
    uploadsByMirror: BASE_LAYERS + OWN_LAYERS,
    start: async (test, mirror) => {
      const options = { programs, hasContainerdStore };
      const engine = await Dockerd.start(test, mirror, options);
      return {
        pull: async (reference) => engine.docker("pull", reference),
        build: async (folder, tag) => engine.build(folder, tag),
        push: async (reference) => engine.docker("push", reference),
      };
    },
  };
}

function podman(programs: Programs): BuildCase {
  return {
    name: `podman, ${programs.name}`,
    uploadsByMirror: OWN_LAYERS,
    start: async (test, mirror) => {
      const engine = await Podman.start(test, mirror, programs);
      return {
        pull: async (reference) => engine.podman("pull", reference),
        build: async (folder, tag) =>
          engine.podman(
            "build",
            "--layers",
            "--isolation=chroot",
            `--tag=${tag}`,
            folder,
          ),
        push: async (reference) => engine.podman("push", reference),
      };
    },
  };
}

function buildah(programs: Programs): BuildCase {
  return {
    name: `buildah, ${programs.name}`,
    uploadsByMirror: OWN_LAYERS,
    start: async (test, mirror) => {
      const engine = await Buildah.start(test, mirror, programs);
      return {
        pull: async (reference) => engine.buildah("pull", reference),
        build: async (folder, tag) =>
          engine.buildah(
            "build-using-dockerfile",
            "--layers",
            "--isolation=chroot",
            `--tag=${tag}`,
            folder,
          ),
        push: async (reference) => engine.buildah("push", reference),
      };
    },
  };
}

const CASES: readonly BuildCase[] = [
  dockerd(INSTALLED, false),
  dockerd(newer, false),
  dockerd(newer, true),
  podman(INSTALLED),
  podman(newer),
  buildah(INSTALLED),
  buildah(newer),
];

void describe("a push of 20 layers, of which 15 are of a base that is cached", () => {
  const suite = afterSuite();
  let upstream: RealRegistry;
  let builder: Dockerd;

  before(async () => {
    upstream = await RealRegistry.start(suite);
    builder = await Dockerd.start(suite);
    const base = `${upstream.host}/library/base:1`;
    await builder.build(await context(suite, "scratch", BASE_LAYERS), base);
    await builder.docker("push", "--quiet", base);
  });

  for (const { name, uploadsByMirror, start } of CASES) {
    void it(`uploads 5 layers by ${name} if the base was pulled by the mirror's name`, async (test) => {
      const mirror = await startMirror(test, upstream);
      const engine = await start(test, mirror);
      const base = `${mirror.host}/docker.io/library/base:1`;
      const own = `${mirror.host}/local/team/app:1`;
      await engine.pull(base);
      await engine.build(await context(test, base, OWN_LAYERS), own);
      await engine.push(own);
      uploaded(OWN_LAYERS, await pushedBytes(mirror));
    });

    void it(`uploads ${uploadsByMirror} layers by ${name} if the base was pulled from Docker Hub by its mirrors`, async (test) => {
      const mirror = await startMirror(test, upstream);
      const engine = await start(test, mirror);
      const base = "docker.io/library/base:1";
      const own = `${mirror.host}/local/team/app:1`;
      await engine.pull(base);
      await engine.build(await context(test, base, OWN_LAYERS), own);
      await engine.push(own);
      uploaded(uploadsByMirror, await pushedBytes(mirror));
    });
  }

  for (const [programs, isByMirrors] of [
    [INSTALLED, false],
    [INSTALLED, true],
    [newer, false],
    [newer, true],
  ] as const) {
    void it(`uploads 5 layers by skopeo, ${programs.name}, that has copied the base ${isByMirrors ? "from Docker Hub by its mirrors" : "from the mirror"}`, async (test) => {
      const mirror = await startMirror(test, upstream);
      const derived = `${upstream.host}/team/derived:${programs.name}`;
      const base = `${upstream.host}/library/base:1`;
      await builder.build(await context(test, base, OWN_LAYERS), derived);
      await builder.docker("push", "--quiet", derived);
      const skopeo = await Skopeo.start(test, mirror, programs);
      const folder = join(await tempDir(test), "base");
      await skopeo.skopeo(
        "copy",
        `docker://${isByMirrors ? "" : `${mirror.host}/`}docker.io/library/base:1`,
        `dir:${folder}`,
      );
      await skopeo.skopeo(
        "copy",
        "--src-tls-verify=false",
        `docker://${derived}`,
        `docker://${mirror.host}/local/team/app:1`,
      );
      uploaded(OWN_LAYERS, await pushedBytes(mirror));
    });
  }
});

async function startMirror(
  test: TestContext,
  upstream: RealRegistry,
): Promise<ChildMirror> {
  const mirror = await ChildMirror.start(test, {
    config: {
      upstreams: {
        "docker.io": { default: true, endpoints: [upstream.origin] },
      },
      hosted: { local: {} },
    },
  });
  test.after(() => {
    if (!test.passed) test.diagnostic(mirror.child.output());
  });
  return mirror;
}

/** Makes a build context of which every layer has one file of random bytes. */
async function context(
  test: AfterTest,
  base: string,
  layers: number,
): Promise<string> {
  const dir = await tempDir(test, "context-");
  const lines = [`FROM ${base}`];
  for (let layer = 0; layer < layers; layer++) {
    const name = `${base === "scratch" ? "base" : "own"}-${layer}.bin`;
    await writeFile(join(dir, name), randomBytes(LAYER_BYTES));
    lines.push(`COPY ${name} /`);
  }
  await writeFile(join(dir, "Dockerfile"), `${lines.join("\n")}\n`);
  return dir;
}

function uploaded(layers: number, bytes: number): void {
  const least = layers * LAYER_BYTES;
  assert.ok(
    bytes >= least && bytes <= least + MAX_OVERHEAD,
    `${bytes} bytes; expected those of ${layers} layers`,
  );
}

async function pushedBytes(mirror: ChildMirror): Promise<number> {
  const [, bytes] =
    /^entrepot_pushed_bytes_total\{registry="local"\} (\d+)$/m.exec(
      await mirror.metrics(),
    ) ?? [];
  return Number(bytes);
}
