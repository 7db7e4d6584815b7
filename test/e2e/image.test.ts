import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { MirrorContainer } from "../support/engines/mirror-container.ts";
import { makeNodeBase, readNodeImage } from "../support/engines/node-base.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { runCommand } from "../support/run-command.ts";
import { seededBytes } from "../support/seeded-bytes.ts";
import { tempDir } from "../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../..");
const COMMANDS = [
  "dockerd",
  "docker",
  "docker-registry",
  "debootstrap",
  "skopeo",
  "tar",
  "npm",
];
const IMAGE = "entrepot:test";
const CACHE = "/var/lib/entrepot";
/** Above the size from which blobs are hashed by the worker thread. */
const PAYLOAD = seededBytes("image", 3_000_000);

void describe("the container image", () => {
  const suite = afterSuite();
  let upstream: RealRegistry;
  let dockerd: Dockerd;
  let requestsOfBuild: readonly string[];

  before(async () => {
    await requireCommands(COMMANDS);
    upstream = await RealRegistry.start(suite);
    const mirror = await ChildMirror.start(suite, {
      config: hubConfig(upstream.origin),
    });
    dockerd = await Dockerd.start(suite, mirror);
    const base = await readNodeImage(join(PROJECT, "Dockerfile"));
    await publish(
      dockerd,
      `${upstream.host}/library/${base}`,
      await makeNodeBase(suite),
    );
    await publish(
      dockerd,
      `${upstream.host}/library/small:1`,
      await payloadTar(suite),
    );
    await upstream.forgetRequests();

    // Now only the upstream has the base, so that the build must pull it through the mirror.
    await dockerd.build(PROJECT, IMAGE, { NODE_IMAGE: base });
    requestsOfBuild = (await upstream.requests()).map(({ target }) => target);
  });

  void it("is built from a base that is pulled through the mirror", () => {
    const blobs = requestsOfBuild.filter((target) => /\/blobs\//.test(target));
    // The configuration and the one layer.
    assert.equal(new Set(blobs).size, 2, requestsOfBuild.join("\n"));
    assert.equal(blobs.length, 2, requestsOfBuild.join("\n"));
  });

  void it("has the documented labels, user, ports and command", async () => {
    const text = await dockerd.docker("image", "inspect", IMAGE);
    const [{ Config }] = JSON.parse(text) as [
      { Config: Readonly<Record<string, unknown>> },
    ];
    assert.deepEqual(
      {
        user: Config["User"],
        stopSignal: Config["StopSignal"],
        volumes: Config["Volumes"],
        ports: Config["ExposedPorts"],
        labels: Config["Labels"],
        entrypoint: Config["Entrypoint"],
        command: Config["Cmd"],
      },
      {
        user: "65532:65532",
        stopSignal: "SIGTERM",
        volumes: { [CACHE]: {} },
        ports: { "5000/tcp": {}, "5001/tcp": {} },
        labels: {
          "org.opencontainers.image.title": "entrepot",
          "org.opencontainers.image.description":
            "A pull-through caching mirror for container registries",
          "org.opencontainers.image.licenses": "Apache-2.0",
        },
        entrypoint: ["entrepot"],
        command: ["serve"],
      },
    );
  });

  void it("contains no second Node.js and no compiler", async () => {
    const said = await dockerd.docker(
      "run",
      "--rm",
      "--network=none",
      "--entrypoint=ls",
      IMAGE,
      "node_modules",
    );
    const packages = said.trim().split("\n");
    assert.ok(packages.includes("fastify"));
    assert.deepEqual(
      packages.filter((name) =>
        /^node-(linux|bin)-|^typescript$|^oxlint/.test(name),
      ),
      [],
    );
  });

  void it("listens on every address and keeps its data in the volume by default", async () => {
    const said = await dockerd.docker(
      "run",
      "--rm",
      "--network=none",
      IMAGE,
      "check-config",
      "--json",
    );
    const config = JSON.parse(said) as Record<string, unknown>;
    assert.deepEqual(
      [config["listen"], config["operator"], config["storage"]],
      ["0.0.0.0:5000", { listen: "0.0.0.0:5001" }, { root: CACHE }],
    );
  });

  void it("serves a pull as an unprivileged user, stops at SIGTERM, and keeps its content across a restart", async (test) => {
    const container = await MirrorContainer.run(
      test,
      dockerd,
      IMAGE,
      hubConfig(upstream.origin),
    );
    const skopeo = await Skopeo.start(test, container);
    const reference = "docker.io/library/small:1";
    const copy = await skopeo.copyAll(reference);

    assert.match(
      await container.entrepot("ls"),
      /docker\.io\/library\/small:1/,
    );
    assert.deepEqual(await container.uids(), [65532, 65532, 65532, 65532]);
    assert.deepEqual(
      new Set(await container.capabilities()),
      new Set(["0".repeat(16)]),
    );
    for (const path of ["/opt/entrepot/x", "/etc/x", "/x"]) {
      assert.match(await container.write(path), /Read-only file system/);
    }
    const cache = await container.mountedAt(CACHE);
    const stored = await readdir(join(cache, "blobs/sha256"));
    const pulled = copy.files
      .map(({ digest }) => digest.slice("sha256:".length))
      .filter((hex) => stored.includes(hex));
    // The manifest, the configuration and the layer.
    assert.equal(pulled.length, 3);
    assert.equal(stored.length, 3);
    assert.doesNotMatch(await container.changedPaths(), /^[AC] \/(opt|var)/m);
    assert.equal(await container.stop(), 0, await container.logs());

    const requests = await upstream.requests();
    await container.start();
    assert.deepEqual(await skopeo.copyAll(reference), copy);
    assert.deepEqual(await upstream.requests(), requests);
    assert.equal(await container.stop(), 0, await container.logs());
  });
});

/** Pushes an image of one layer and removes it from the daemon. */
async function publish(
  dockerd: Dockerd,
  reference: string,
  tar: string,
): Promise<void> {
  await dockerd.docker(
    "import",
    "--change=ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
    tar,
    reference,
  );
  await dockerd.docker("push", "--quiet", reference);
  await dockerd.docker("rmi", reference);
}

async function payloadTar(test: AfterTest): Promise<string> {
  const dir = await tempDir(test, "payload-");
  await writeFile(join(dir, "payload.bin"), PAYLOAD.read(0, PAYLOAD.sizeBytes));
  const tar = join(dir, "payload.tar");
  await runCommand("tar", ["-C", dir, "-cf", tar, "payload.bin"]);
  return tar;
}
