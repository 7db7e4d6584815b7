import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import type { ImportReport } from "../../src/images/bundles/bundle.ts";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { Buildah } from "../support/engines/buildah.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
  type PublishedImages,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import {
  type Engine,
  type MirrorAddress,
  requireCommands,
} from "../support/engines/engine.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { Podman } from "../support/engines/podman.ts";
import {
  INSTALLED,
  type Programs,
  runProgram,
} from "../support/engines/programs.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { refusal, runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

await requireCommands([
  "skopeo",
  "podman",
  "buildah",
  "dockerd",
  "ctr",
  "docker-registry",
  "tar",
  "gzip",
  "zstd",
]);
const newer = await fetchNewerClients();
const MAIN = join(import.meta.dirname, "../../src/main.ts");
const HUB = "docker.io/library";

/** A bundle that a tool wrote, and how it is imported. */
interface Written {
  readonly file: string;
  /** Options of the import. */
  readonly options?: readonly string[];
  /** The names that are reported. */
  readonly refs: readonly string[];
}

/** What all tools write from. */
interface Sources {
  readonly dir: string;
  /** `127.0.0.1:PORT` of a registry with the images. */
  readonly host: string;
  readonly images: PublishedImages;
}

/** Runs a program of skopeo, oras and crane in the folder of the bundles. */
async function tool(
  programs: Programs,
  { dir }: Sources,
  program: string,
  ...args: readonly string[]
): Promise<void> {
  await runProgram(programs, program, args, {
    cwd: dir,
    env: { HOME: dir },
  });
}

async function writeBySkopeo(sources: Sources): Promise<readonly Written[]> {
  const copy = (programs: Programs, from: string, to: string) =>
    tool(
      programs,
      sources,
      "skopeo",
      "copy",
      "--all",
      "--src-tls-verify=false",
      `docker://${sources.host}/library/${from}:1`,
      to,
    );
  const named = `${HUB}/skopeo:1`;
  await copy(INSTALLED, "multi", `oci-archive:skopeo.tar:${named}`);
  await copy(newer, "zstd", "oci-archive:skopeo-none.tar");
  await copy(newer, "bb", "oci:skopeo-tags:2");
  await copy(newer, "multi", "oci:skopeo-tags:3");
  return [
    { file: "skopeo.tar", refs: [named] },
    {
      file: "skopeo-none.tar",
      options: ["--name", "skopeo-none:1"],
      refs: [`${HUB}/skopeo-none:1`],
    },
    {
      file: "skopeo-tags",
      options: ["--name", `${HUB}/skopeo`],
      refs: [`${HUB}/skopeo:2`, `${HUB}/skopeo:3`],
    },
  ];
}

async function writeByPodman(
  test: AfterTest,
  { dir, host }: Sources,
): Promise<readonly Written[]> {
  const written: Written[] = [];
  for (const programs of [INSTALLED, newer]) {
    const podman = await Podman.start(test, { host }, programs);
    const source = `${host}/library/bb:1`;
    const name = `${HUB}/podman-${programs.name}:1`;
    const file = `podman-${programs.name}.tar`;
    await podman.podman("pull", "--tls-verify=false", "--quiet", source);
    await podman.podman("tag", source, name);
    await podman.podman(
      "save",
      "--quiet",
      "--format=oci-archive",
      "--output",
      join(dir, file),
      name,
    );
    written.push({ file, refs: [name] });
    if (programs !== INSTALLED) continue;
    await podman.podman(
      "save",
      "--quiet",
      "--format=docker-archive",
      "--output",
      join(dir, "podman-docker.tar"),
      name,
    );
  }
  return written;
}

async function writeByBuildah(
  test: AfterTest,
  { dir, host }: Sources,
): Promise<readonly Written[]> {
  const name = `${HUB}/buildah:1`;
  const buildah = await Buildah.start(test, { host });
  const source = `${host}/library/zstd:1`;
  await buildah.buildah("pull", "--tls-verify=false", "--quiet", source);
  const file = join(dir, "buildah.tar");
  await buildah.buildah(
    "push",
    "--quiet",
    source,
    `oci-archive:${file}:${name}`,
  );
  return [{ file: "buildah.tar", refs: [name] }];
}

async function writeByDocker(
  test: AfterTest,
  { dir, host }: Sources,
): Promise<readonly Written[]> {
  const written: Written[] = [];
  for (const hasContainerdStore of [false, true]) {
    const label = hasContainerdStore ? "containerd" : "graph";
    const dockerd = await Dockerd.start(test, undefined, {
      programs: newer,
      hasContainerdStore,
    });
    // Of an index, it keeps one platform.
    const names = ["bb", "multi"].map((image) => ({
      source: `${host}/library/${image}:1`,
      name: `${HUB}/docker-${label}-${image}:1`,
    }));
    for (const { source, name } of names) {
      await dockerd.docker("pull", "--quiet", source);
      await dockerd.docker("tag", source, name);
    }
    const refs = names.map(({ name }) => name);
    const file = `docker-${label}.tar`;
    await dockerd.docker("save", "--output", join(dir, file), ...refs);
    written.push({ file, refs });
    await dockerd.empty();
  }
  const old = await Dockerd.start(test);
  await old.docker("pull", "--quiet", `${host}/library/bb:1`);
  await old.docker(
    "save",
    "--output",
    join(dir, "docker-20.tar"),
    `${host}/library/bb:1`,
  );
  return written;
}

async function writeByCrane(sources: Sources): Promise<readonly Written[]> {
  const source = `${sources.host}/library/multi:1`;
  const pull = ["pull", "--insecure", "--format=oci", source];
  await tool(newer, sources, "crane", ...pull, "crane");
  await tool(newer, sources, "crane", ...pull, "crane-ref", "--annotate-ref");
  return [
    {
      file: "crane",
      options: ["--name", "crane:1"],
      refs: [`${HUB}/crane:1`],
    },
    {
      file: "crane-ref",
      options: ["--name", "crane-ref:1"],
      refs: [`${HUB}/crane-ref:1`],
    },
  ];
}

async function writeByOras(sources: Sources): Promise<readonly Written[]> {
  const source = `${sources.host}/library/bb:1`;
  const oras = (...args: readonly string[]) =>
    tool(newer, sources, "oras", ...args);
  await writeFile(join(sources.dir, "sbom.json"), '{"a": "document"}\n');
  await oras(
    "attach",
    "--plain-http",
    "--artifact-type",
    "application/vnd.example.sbom",
    source,
    "sbom.json",
  );
  await oras(
    "cp",
    "--recursive",
    "--from-plain-http",
    source,
    "--to-oci-layout",
    "oras:1",
  );
  await oras(
    "backup",
    "--plain-http",
    "--include-referrers",
    "--output",
    "oras-backup.tar",
    source,
  );
  return ["oras", "oras-backup.tar"].map((file) => {
    const name = file.replace(".tar", "");
    return {
      file,
      options: ["--name", `${HUB}/${name}`],
      refs: [`${HUB}/${name}:1`],
    };
  });
}

/** The engines that can run containers here. */
const ENGINES: readonly {
  readonly name: string;
  readonly start: (test: AfterTest, mirror: MirrorAddress) => Promise<Engine>;
}[] = [
  {
    name: "dockerd",
    start: (test, mirror) => Dockerd.start(test, mirror),
  },
  {
    name: "containerd",
    start: (test, mirror) => Containerd.start(test, mirror),
  },
  {
    name: "podman",
    start: (test, mirror) => Podman.start(test, mirror),
  },
];

async function pullsAndRuns(engine: Engine, ref: string): Promise<void> {
  await engine.pull(ref);
  assert.match(
    await engine.run(ref, PAYLOAD_COMMAND),
    new RegExp(`^${PAYLOAD_SHA256} `),
    ref,
  );
}

/** Runs a command of entrepot in a folder. */
async function entrepot(
  { configFile }: ChildMirror,
  cwd: string,
  ...args: readonly string[]
): Promise<string> {
  const { stdout } = await runCommand(
    process.execPath,
    [MAIN, ...args, "--config", configFile],
    { cwd },
  );
  return stdout;
}

/** Starts an empty mirror whose upstreams are never dialled. */
async function startSite(test: AfterTest): Promise<ChildMirror> {
  const site = await ChildMirror.start(test, {
    config: hubConfig("http://127.0.0.1:1"),
    args: ["--offline"],
  });
  // The configuration then has the port by which commands find the mirror.
  await site.restart();
  return site;
}

void describe("a bundle that another tool wrote", () => {
  const suite = afterSuite();
  let sources: Sources;
  let mirror: ChildMirror;
  const written = new Map<string, readonly Written[]>();

  before(async () => {
    const dir = await tempDir(suite, "bundles-");
    const registry = await RealRegistry.start(suite);
    const images = await publishBusyboxImages(suite, registry);
    sources = { dir, host: registry.host, images };
    written.set("skopeo", await writeBySkopeo(sources));
    written.set("podman", await writeByPodman(suite, sources));
    written.set("buildah", await writeByBuildah(suite, sources));
    written.set("docker", await writeByDocker(suite, sources));
    written.set("crane", await writeByCrane(sources));
    written.set("oras", await writeByOras(sources));
    mirror = await startSite(suite);
    await registry.stop();
  });

  for (const name of [
    "skopeo",
    "podman",
    "buildah",
    "docker",
    "crane",
    "oras",
  ]) {
    void it(`is imported: ${name}`, async () => {
      const bundles = written.get(name) ?? [];
      assert.notEqual(bundles.length, 0);
      for (const { file, options = [], refs } of bundles) {
        const text = await entrepot(
          mirror,
          sources.dir,
          "import",
          file,
          "--json",
          ...options,
        );
        const { images } = JSON.parse(text) as ImportReport;
        assert.deepEqual(images.map(({ ref }) => ref).sort(), [...refs].sort());
      }
    });
  }

  void it("has the digests that were published, if its tool keeps them", async () => {
    const { images } = sources;
    const ls = JSON.parse(
      await entrepot(mirror, sources.dir, "ls", "--json"),
    ) as {
      ref: string;
      digest: string;
      complete: boolean;
    }[];
    for (const [ref, { digest }] of [
      [`${HUB}/skopeo:1`, images.multiArch],
      [`${HUB}/skopeo:3`, images.multiArch],
      [`${HUB}/crane:1`, images.multiArch],
      [`${HUB}/crane-ref:1`, images.multiArch],
      [`${HUB}/oras:1`, images.docker],
      [`${HUB}/oras-backup:1`, images.docker],
      [`${HUB}/docker-containerd-bb:1`, images.docker],
      [`${HUB}/docker-containerd-multi:1`, images.multiArch],
    ] as const) {
      assert.equal(ls.find((image) => image.ref === ref)?.digest, digest, ref);
    }
    const incomplete = ls.filter(({ complete }) => !complete);
    assert.deepEqual(incomplete, []);
  });

  void it("has referrers that are listed and pulled offline", async () => {
    const { dir } = sources;
    const image = `${mirror.host}/library/oras-backup:1`;
    const { stdout } = await runProgram(
      newer,
      "oras",
      ["discover", "--plain-http", "--format=json", image],
      { cwd: dir },
    );
    const digest = /sha256:[0-9a-f]{64}/.exec(
      JSON.stringify(
        (JSON.parse(stdout) as { referrers: readonly unknown[] }).referrers,
      ),
    )?.[0];
    const out = join(dir, "pulled");
    await mkdir(out);
    await runProgram(
      newer,
      "oras",
      [
        "pull",
        "--plain-http",
        "--output",
        out,
        image.replace(":1", `@${digest}`),
      ],
      { cwd: dir },
    );
    assert.deepEqual(await readdir(out), ["sbom.json"]);
  });

  for (const { name, start } of ENGINES) {
    void it(`is pulled by ${name} and run`, async (test) => {
      const engine = await start(test, { host: mirror.host });
      const refs = [...written.values()].flat().flatMap((each) => each.refs);
      for (const ref of refs) {
        // dockerd 20.10 cannot unpack zstd.
        const isZstd = /skopeo-none|buildah/.test(ref);
        if (name === "dockerd" && isZstd) continue;
        await pullsAndRuns(engine, ref);
      }
    });
  }

  void it("may be compressed by gzip and zstd, and imported into a stopped mirror", async (test) => {
    const { dir } = sources;
    const [first] = written.get("skopeo") ?? [];
    assert(first !== undefined);
    await runCommand("gzip", ["-k", first.file], { cwd: dir });
    await runCommand("zstd", ["-q", first.file], { cwd: dir });
    const site = await startSite(test);
    await entrepot(
      site,
      sources.dir,
      "import",
      `${first.file}.gz`,
      "--into",
      "local/gz",
    );
    await site.terminate();
    await entrepot(site, sources.dir, "import", `${first.file}.zst`);
    await site.start();
    const podman = await Podman.start(test, { host: site.host });
    await podman.pull(`${HUB}/skopeo:1`);
    await podman.podman(
      "pull",
      "--tls-verify=false",
      "--quiet",
      `${site.host}/local/gz/library/skopeo:1`,
    );
  });

  for (const file of ["docker-20.tar", "podman-docker.tar"]) {
    void it(`is refused with a command if it is a docker-archive: ${file}`, async (test) => {
      const { dir } = sources;
      const site = await startSite(test);
      const message = await refusal(
        entrepot(site, sources.dir, "import", file),
      );
      const command = /'(skopeo copy docker-archive:.*?)'/.exec(message)?.[1];
      assert(command !== undefined, message);
      assert.deepEqual(await readdir(join(site.root, "blobs/sha256")), []);
      // The command that it names writes a bundle.
      const words = command
        .replace("FILE.tar", file)
        .replace("OUT.tar", "converted.tar")
        .replace("NAME", `${HUB}/converted:1`)
        .split(" ");
      const [program = "", ...args] = words;
      await rm(join(dir, "converted.tar"), { force: true });
      await runCommand(program, args, { cwd: dir });
      assert.match(
        await entrepot(site, sources.dir, "import", "converted.tar"),
        new RegExp(`^${HUB}/converted:1\n`),
      );
    });
  }
});

void describe("bundles from a connected to an isolated mirror", () => {
  const suite = afterSuite();
  const january = Array.from({ length: 10 }, (_, at) => `ten-${at}`);
  const february = ["ten-0", "ten-10", "ten-11"];
  let dir: string;

  before(async () => {
    dir = await tempDir(suite, "bundles-");
    const registry = await RealRegistry.start(suite);
    await publishBusyboxImages(suite, registry);
    const { host } = registry;
    for (const name of new Set([...january, ...february])) {
      await writeFile(join(dir, name), name);
      await runCommand("tar", ["-cf", `${name}.layer`, name], { cwd: dir });
      // Every image has the layers of the first one.
      const args = ["append", "--insecure", "--base", `${host}/library/bb:1`];
      const target = ["--new_tag", `${host}/library/${name}:1`];
      await runProgram(
        newer,
        "crane",
        [...args, "--new_layer", `${name}.layer`, ...target],
        { cwd: dir },
      );
    }
    const connected = await ChildMirror.start(suite, {
      config: hubConfig(registry.origin),
    });
    await connected.restart();
    const skopeo = await Skopeo.start(suite, { host: connected.host });
    for (const name of january) {
      await skopeo.copyAll(`docker.io/library/${name}:1`);
    }
    const tags = january.map((name) => `${name}:1`);
    await entrepot(connected, dir, "export", ...tags, "-o", "january.tar");
    for (const name of february) {
      await skopeo.copyAll(`docker.io/library/${name}:1`);
    }
    await entrepot(
      connected,
      dir,
      "export",
      ...february.map((name) => `${name}:1`),
      "--since",
      "january.tar",
      "-o",
      "february.tar",
    );
    await connected.terminate();
    await registry.stop();
  });

  void it("bring ten images that share layers, and later what is new", async (test) => {
    const site = await startSite(test);
    const missing = await refusal(
      entrepot(site, dir, "import", "february.tar"),
    );
    assert.match(missing, /the base of the bundle is missing/);
    assert.deepEqual(await readdir(join(site.root, "blobs/sha256")), []);
    const first = JSON.parse(
      await entrepot(site, dir, "import", "january.tar", "--json"),
    ) as ImportReport;
    // A manifest, a config and a layer each; two layers are shared.
    assert.equal(first.images.length, 10);
    assert(first.blobs < 10 * 4, `got ${first.blobs}`);
    const second = JSON.parse(
      await entrepot(site, dir, "import", "february.tar", "--json"),
    ) as ImportReport;
    assert.equal(second.images.length, 3);
    assert.equal(second.blobs, 2 * 3);
    for (const { start } of ENGINES) {
      const engine = await start(test, { host: site.host });
      for (const name of new Set([...january, ...february])) {
        await pullsAndRuns(engine, `${HUB}/${name}:1`);
      }
    }
  });

  void it("are refused if a byte is flipped or the end is missing, and leave nothing", async (test) => {
    const site = await startSite(test);
    const bytes = await readFile(join(dir, "january.tar"));
    await writeFile(join(dir, "cut.tar"), bytes.subarray(0, -20_000));
    const flipped = Buffer.from(bytes);
    const at = Math.floor(bytes.length / 2);
    flipped.writeUInt8((flipped[at] ?? 0) ^ 1, at);
    await writeFile(join(dir, "flipped.tar"), flipped);
    for (const [file, reason] of [
      ["cut.tar", /the archive ends early, in or after blobs\/sha256/],
      ["flipped.tar", /member blobs\/sha256\/[0-9a-f]{64} is damaged/],
    ] as const) {
      const message = await refusal(entrepot(site, dir, "import", file));
      assert.match(message, reason);
      assert.deepEqual(await readdir(join(site.root, "blobs/sha256")), []);
    }
  });
});
