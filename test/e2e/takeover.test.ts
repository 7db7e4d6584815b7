import assert from "node:assert/strict";
import { lstatSync, readdirSync, statSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before as beforeAll, describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import type {
  TakeoverCounts,
  TakeoverProblem,
} from "../../src/images/takeover/takeover.ts";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { describeFolder } from "../support/distribution-tree.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
  type PublishedImage,
  type PublishedImages,
} from "../support/engines/busybox-images.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { Podman } from "../support/engines/podman.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

const MAIN = join(import.meta.dirname, "../../src/main.ts");
const KINDS = ["docker", "multiArch", "zstd"] as const;

/** Runs `entrepot takeover`, as users do. */
async function takeover(...args: readonly string[]): Promise<string> {
  const { stdout } = await runCommand(process.execPath, [
    MAIN,
    "takeover",
    ...args,
  ]);
  return stdout;
}

interface Report extends TakeoverCounts {
  readonly problems: readonly TakeoverProblem[];
}

/** Asserts that every blob of the storage root is a file of the folder by a second name. */
function assertLinked(root: string, folder: string): void {
  const inodes = new Set(
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .map((name) => lstatSync(join(folder, name)))
      .filter((stats) => stats.isFile())
      .map(({ ino }) => ino),
  );
  const blobs = readdirSync(join(root, "blobs/sha256"));
  assert.ok(blobs.length > 0);
  for (const name of blobs) {
    const { ino, nlink } = statSync(join(root, "blobs/sha256", name));
    assert.ok(inodes.has(ino), name);
    assert.equal(nlink, 2, name);
  }
}

/** Pulls with podman, and runs a container of the pulled image. */
async function pullsAndRuns(
  engine: Podman,
  reference: string,
  image: PublishedImage,
): Promise<void> {
  const digests = await engine.pull(reference);
  assert.ok(digests.includes(image.digest), `${reference}: ${digests.join()}`);
  const output = await engine.run(reference, PAYLOAD_COMMAND);
  assert.match(output, new RegExp(`^${PAYLOAD_SHA256} `), reference);
}

void describe("the storage folder of a docker-registry", () => {
  const suite = afterSuite();
  let published: RealRegistry;
  let images: PublishedImages;

  beforeAll(async () => {
    await requireCommands(["dockerd", "docker", "podman", "buildah", "skopeo"]);
    await requireCommands(["docker-registry", "tar"]);
    published = await RealRegistry.start(suite);
    images = await publishBusyboxImages(suite, published);
  });

  void it("that was pushed to is taken over by links, and every image is pulled from the hosted registry", async (test) => {
    const old = await RealRegistry.start(test, { isDeletable: true });
    const skopeo = await Skopeo.start(test, { host: old.host });
    for (const kind of KINDS) {
      const { repository, tag } = images[kind];
      await copyAll(skopeo, published, `${repository}:${tag}`, old);
    }
    const { repository } = images.docker;
    await copyAll(skopeo, published, `${repository}:1`, old, "team/app:1");
    await copyAll(skopeo, published, `${repository}:1`, old, "team/gone:1");
    await skopeo.skopeo(
      "delete",
      "--tls-verify=false",
      `docker://${old.host}/team/gone:1`,
    );
    await old.stop();
    const before = describeFolder(old.storage);
    const dir = await tempDir(test);
    const configFile = join(dir, "entrepot.yaml");
    const config = { hosted: { local: { default: true } } };
    await writeFile(
      configFile,
      JSON.stringify({
        ...config,
        storage: { root: join(dir, "data") },
        operator: { listen: false },
      }),
      { mode: 0o600 },
    );
    const report = JSON.parse(
      await takeover(
        old.storage,
        "--into",
        "local",
        "--config",
        configFile,
        "--json",
      ),
    ) as Report;
    assert.deepEqual(report.problems, []);
    assert.deepEqual([report.tags, report.copiedBlobs], [4, 0]);
    assert.deepEqual(describeFolder(old.storage), before);
    assertLinked(join(dir, "data"), old.storage);
    await rm(old.storage, { recursive: true });
    const mirror = await ChildMirror.start(test, { config, dir });
    const podman = await Podman.start(test, mirror);
    for (const kind of KINDS) {
      const { repository: name, tag } = images[kind];
      const reference = `${mirror.host}/local/${name}:${tag}`;
      await pullsAndRuns(podman, reference, images[kind]);
    }
    await pullsAndRuns(podman, `${mirror.host}/team/app:1`, images.docker);
    const gone = await fetch(`${mirror.origin}/v2/team/gone/manifests/1`);
    assert.equal(gone.status, 404);
    await copiesEverything(test, mirror, "local/library/multi:1");
  });

  void it("that was a proxy is taken over by links with its translated configuration, and every image is pulled while both registries are gone", async (test) => {
    const upstream = await RealRegistry.start(test, { sharedWith: published });
    const proxy = await RealRegistry.start(test, {
      config: { proxy: { remoteurl: upstream.origin } },
    });
    const client = await Skopeo.start(test, { host: proxy.host });
    for (const kind of KINDS) {
      const { repository, tag } = images[kind];
      await client.copyAll(`${proxy.host}/${repository}:${tag}`);
    }
    await proxy.stop();
    await upstream.stop();
    const before = describeFolder(proxy.storage);
    const dir = await tempDir(test);
    const configFile = join(dir, "translated.yaml");
    const text = await takeover("--registry-config", proxy.configFile);
    await writeFile(configFile, text, { mode: 0o600 });
    const printed = await takeover(
      proxy.storage,
      "--upstream",
      upstream.host,
      "--config",
      configFile,
    );
    assert.match(printed, /3 repositories, 3 tags, 5 manifests\n/);
    assert.equal(printed.includes("copied"), false);
    const root = join(proxy.storage, "entrepot");
    const after = describeFolder(proxy.storage).filter(
      (line) => !line.startsWith("entrepot"),
    );
    assert.deepEqual(after, before);
    assertLinked(root, join(proxy.storage, "docker"));
    await rm(join(proxy.storage, "docker"), { recursive: true });
    const config = parseYaml(text) as Record<string, unknown>;
    assert.deepEqual(config["listen"], "127.0.0.1:0");
    const mirror = await ChildMirror.start(test, {
      config: { ...config, operator: { listen: "127.0.0.1:0" } },
      dir,
    });
    const podman = await Podman.start(test, mirror);
    for (const kind of KINDS) {
      const { repository, tag } = images[kind];
      // The upstream is the default registry, as it was of the proxy.
      const reference = `${mirror.host}/${repository}:${tag}`;
      await pullsAndRuns(podman, reference, images[kind]);
    }
    await copiesEverything(test, mirror, "library/multi:1");
  });

  /** Copies every platform from the mirror, and from the registry of the published images. */
  async function copiesEverything(
    test: AfterTest,
    mirror: ChildMirror,
    name: string,
  ): Promise<void> {
    const ours = await Skopeo.start(test, { host: mirror.host });
    const theirs = await Skopeo.start(test, { host: published.host });
    const got = await ours.copyAll(`${mirror.host}/${name}`);
    const wanted = await theirs.copyAll(
      `${published.host}/${name.replace(/^local\//, "")}`,
    );
    assert.deepEqual(got, wanted);
  }
});

async function copyAll(
  skopeo: Skopeo,
  from: RealRegistry,
  name: string,
  to: RealRegistry,
  target = name,
): Promise<void> {
  await skopeo.skopeo(
    "copy",
    "--all",
    "--preserve-digests",
    "--src-tls-verify=false",
    "--dest-tls-verify=false",
    `docker://${from.host}/${name}`,
    `docker://${to.host}/${target}`,
  );
}
