import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import {
  CLIENT_FILES,
  EXAMPLE_ADDRESS,
  listClientFiles,
  readClientFile,
} from "../../support/engines/client-files.ts";
import { parseSimpleToml, tomlToJson } from "../../support/simple-toml.ts";

const MIRROR = `http://${EXAMPLE_ADDRESS}`;

/** The parsed content that each engine must read. */
const WANTED: Readonly<Record<string, unknown>> = {
  "docker/daemon.json": {
    "registry-mirrors": [MIRROR],
    "insecure-registries": [EXAMPLE_ADDRESS],
  },
  "containerd/certs.d/docker.io/hosts.toml": {
    server: "https://registry-1.docker.io",
    host: { [MIRROR]: { capabilities: ["pull", "resolve"] } },
  },
  // Without server, the registry itself is the last resort.
  "containerd/certs.d/_default/hosts.toml": {
    host: { [MIRROR]: { capabilities: ["pull", "resolve"] } },
  },
  // The mirror's own name: `_5000_` is containerd's spelling of a port.
  "containerd/certs.d/mirror.internal_5000_/hosts.toml": {
    server: MIRROR,
    host: { [MIRROR]: { capabilities: ["pull", "resolve", "push"] } },
  },
  "containers/registries.conf": {
    registry: [
      ...["docker.io", "quay.io"].map((name) => ({
        prefix: name,
        location: name,
        mirror: [{ location: `${EXAMPLE_ADDRESS}/${name}`, insecure: true }],
      })),
      { location: EXAMPLE_ADDRESS, insecure: true },
    ],
  },
  "containerd/config.toml": {
    version: 2,
    plugins: {
      "io.containerd.grpc.v1.cri": {
        registry: { config_path: "/etc/containerd/certs.d" },
      },
    },
  },
  "k3s/registries.yaml": {
    mirrors: {
      "docker.io": { endpoint: [MIRROR] },
      "quay.io": { endpoint: [MIRROR] },
      [EXAMPLE_ADDRESS]: { endpoint: [MIRROR] },
    },
  },
  "buildkit/buildkitd.toml": {
    registry: {
      "docker.io": { mirrors: [`${EXAMPLE_ADDRESS}/docker.io`] },
      "quay.io": { mirrors: [`${EXAMPLE_ADDRESS}/quay.io`] },
      [EXAMPLE_ADDRESS]: { http: true },
    },
  },
};

void describe("the clients' files", () => {
  void it("are exactly those that this test checks", async () => {
    assert.deepEqual(await listClientFiles(), Object.keys(WANTED).sort());
  });

  for (const [path, wanted] of Object.entries(WANTED)) {
    void it(`${path} contains what its engine expects`, async () => {
      const text = await readFile(join(CLIENT_FILES, path), "utf8");
      assert.deepEqual(parseClientFile(path, text), wanted);
    });
  }

  void it("take another address for a test", async () => {
    const text = await readClientFile("docker/daemon.json", {
      host: "127.0.0.1:1",
    });
    assert.deepEqual(JSON.parse(text), {
      "registry-mirrors": ["http://127.0.0.1:1"],
      "insecure-registries": ["127.0.0.1:1"],
    });
  });
});

function parseClientFile(path: string, text: string): unknown {
  switch (extname(path)) {
    case ".json":
      return JSON.parse(text);
    case ".yaml":
      return parseYaml(text);
    default:
      return tomlToJson(parseSimpleToml(text));
  }
}
