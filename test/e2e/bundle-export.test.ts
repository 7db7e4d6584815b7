import assert from "node:assert/strict";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { digestOf as hashOf } from "../../src/oci/digest.ts";
import { afterSuite } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
  type PublishedImages,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { Podman } from "../support/engines/podman.ts";
import { INSTALLED, runProgram } from "../support/engines/programs.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { refusal, runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

await requireCommands(["skopeo", "podman", "ctr", "docker-registry", "tar"]);
const newer = await fetchNewerClients();
const MAIN = join(import.meta.dirname, "../../src/main.ts");
const NAMES = ["bb", "multi", "zstd"] as const;
const [OWN, FOREIGN] =
  process.arch === "arm64" ? ["arm64", "amd64"] : ["amd64", "arm64"];
/** Nothing listens there: what an engine runs came from the bundle. */
const NOWHERE = { host: "127.0.0.1:1" };

void describe("an exported bundle", () => {
  const suite = afterSuite();
  let dir: string;
  let images: PublishedImages;

  /** Names a bundle of the suite. */
  const at = (name: string): string => join(dir, name);

  before(async () => {
    dir = await tempDir(suite, "bundles-");
    const registry = await RealRegistry.start(suite);
    images = await publishBusyboxImages(suite, registry);
    const mirror = await ChildMirror.start(suite, {
      config: hubConfig(registry.origin),
    });
    const { host } = mirror;
    const skopeo = await Skopeo.start(suite, { host });
    for (const name of NAMES) {
      await skopeo.copyAll(`docker.io/library/${name}:1`);
    }
    await skopeo.skopeo(
      "copy",
      "--all",
      "--src-tls-verify=false",
      "--dest-tls-verify=false",
      `docker://${host}/library/multi:1`,
      `docker://${host}/local/signed:1`,
    );
    await writeFile(at("sbom.json"), '{"a": "document"}\n');
    await runProgram(
      newer,
      "oras",
      [
        "attach",
        "--plain-http",
        "--artifact-type",
        "application/vnd.example.sbom",
        `${host}/local/signed:1`,
        "sbom.json",
      ],
      { cwd: dir },
    );
    // The configuration then has the port by which commands find the mirror.
    await mirror.restart();
    const run = async (...args: readonly string[]): Promise<string> => {
      const { stdout } = await runCommand(
        process.execPath,
        [MAIN, "export", ...args, "--config", mirror.configFile],
        { cwd: dir },
      );
      return stdout;
    };
    await run("bb:1", "multi:1", "zstd:1", "-o", "all.tar");
    await run("bb:1", "-o", "bb.tar");
    await run("multi:1", "-o", "multi");
    await run("bb:1", "-o", "bb");
    for (const [name, arch] of [
      ["own.tar", OWN],
      ["foreign.tar", FOREIGN],
    ] as const) {
      await run("multi:1", "--platform", `linux/${arch}`, "-o", name);
    }
    await run("local/signed:1", "--with-referrers", "-o", "signed.tar");
    await mirror.terminate();
    await run("bb:1", "multi:1", "zstd:1", "-o", "stopped.tar");
    await runCommand("cmp", ["all.tar", "stopped.tar"], { cwd: dir });
    const mode = "-rw-r--r-- 0/0";
    const { stdout: list } = await runCommand(
      "tar",
      ["--utc", "-tvf", "all.tar"],
      { cwd: dir },
    );
    const lines = list.trim().split("\n");
    for (const line of lines) {
      assert(line.startsWith(mode) && line.includes("1970-01-01 00:00"), line);
    }
  });

  for (const programs of [INSTALLED, newer]) {
    void it(`is read by ${programs.name} skopeo, whole and by platform`, async (test) => {
      const skopeo = await Skopeo.start(test, NOWHERE, programs);
      const out = await tempDir(test);
      const copy = (source: string, ...options: readonly string[]) =>
        skopeo.skopeo("copy", ...options, source, `dir:${out}/copy`);
      const all = ["--all", "--preserve-digests"];
      const multi = `oci-archive:${at("all.tar")}:docker.io/library/multi:1`;
      await copy(multi, ...all);
      assert.equal(
        await digestOf(skopeo, `dir:${out}/copy`),
        images.multiArch.digest,
      );
      await copy(`oci:${at("multi")}:docker.io/library/multi:1`, ...all);
      await copy(`oci-archive:${at("bb.tar")}`, "--preserve-digests");
      assert.equal(
        await digestOf(skopeo, `dir:${out}/copy`),
        images.docker.digest,
      );
      // skopeo 1.9 finds only OCI media types by their name.
      if (programs !== INSTALLED) {
        await copy(`oci-archive:${at("all.tar")}:docker.io/library/bb:1`);
      }
      await copy(`oci-archive:${at("own.tar")}`);
      await copy(
        `oci-archive:${at("foreign.tar")}`,
        "--override-arch",
        FOREIGN,
      );
      for (const name of ["own.tar", "foreign.tar"]) {
        assert.equal(
          await digestOf(skopeo, `oci-archive:${at(name)}`),
          images.multiArch.digest,
        );
      }
      await copy(`oci-archive:${at("signed.tar")}:local/signed:1`, ...all);
    });

    void it(`is loaded and run by ${programs.name} podman`, async (test) => {
      const podman = await Podman.start(test, NOWHERE, programs);
      // The newer podman cannot run containers here.
      const works = async (reference: string): Promise<void> => {
        if (programs === INSTALLED) await runs(podman, reference);
        else await podman.podman("image", "inspect", reference);
      };
      await podman.podman("load", "--input", at("bb.tar"));
      await works("docker.io/library/bb:1");
      await podman.podman("load", "--input", at("own.tar"));
      await works("docker.io/library/multi:1");
      assert.match(
        await refusal(podman.podman("load", "--input", at("all.tar"))),
        /more than one image/,
      );
      const zstd = `oci-archive:${at("all.tar")}:docker.io/library/zstd:1`;
      await podman.podman("pull", zstd);
      await works("docker.io/library/zstd:1");
    });

    void it(`is imported and run by ${programs.name} containerd`, async (test) => {
      const containerd = await Containerd.start(test, NOWHERE, programs);
      const load = (name: string, ...options: readonly string[]) =>
        containerd.ctr("images", "import", ...options, at(name));
      await load("all.tar");
      for (const name of NAMES) {
        await runs(containerd, `docker.io/library/${name}:1`);
      }
      await containerd.empty();
      await load("own.tar");
      await runs(containerd, "docker.io/library/multi:1");
      await containerd.empty();
      await load("foreign.tar", "--platform", `linux/${FOREIGN}`);
      assert.match(await refusal(load("foreign.tar")), /not found/);
      await containerd.empty();
      await load("signed.tar");
      assert.match(
        await containerd.ctr("images", "ls", "-q"),
        /^local\/signed:1\n$/,
      );
      await runs(containerd, "local/signed:1");
    });
  }

  void it("is pushed and validated by crane as a folder", async (test) => {
    const registry = await RealRegistry.start(test);
    for (const [name, digest] of [
      ["multi", images.multiArch.digest],
      ["bb", images.docker.digest],
    ] as const) {
      const reference = `${registry.host}/${name}:1`;
      await crane("push", at(name), reference);
      await crane("validate", "--remote", reference);
      assert.equal(await crane("digest", reference), digest);
    }
  });

  void it("shows oras the referrers of an image", async (test) => {
    const layout = await tempDir(test);
    await mkdir(join(layout, "x"));
    await runCommand("tar", ["-xf", at("signed.tar"), "-C", join(layout, "x")]);
    const { stdout } = await runProgram(newer, "oras", [
      "discover",
      "--oci-layout",
      "--format",
      "json",
      `${join(layout, "x")}@${images.multiArch.digest}`,
    ]);
    assert.match(stdout, /application\/vnd\.example\.sbom/);
    const names = await readdir(join(layout, "x"));
    assert.deepEqual(names.toSorted(), ["blobs", "index.json", "oci-layout"]);
  });
});

async function crane(...args: readonly string[]): Promise<string> {
  return (await runProgram(newer, "crane", args)).stdout.trim();
}

async function runs(
  engine: Pick<Podman, "run">,
  reference: string,
): Promise<void> {
  const output = await engine.run(reference, PAYLOAD_COMMAND);
  assert.equal(output.trim(), `${PAYLOAD_SHA256}  /payload.bin`);
}

async function digestOf(skopeo: Skopeo, name: string): Promise<string> {
  const raw = await skopeo.skopeo("inspect", "--raw", name);
  return hashOf(Buffer.from(raw));
}
