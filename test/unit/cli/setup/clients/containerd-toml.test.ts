import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { mergeConfigToml } from "../../../../../src/cli/setup/clients/containerd-toml.ts";

const FOLDER = "/etc/containerd/certs.d";
const V2 = '[plugins."io.containerd.grpc.v1.cri".registry]';
const V3 = "[plugins.'io.containerd.cri.v1.images'.registry]";
const KEY = `config_path = "${FOLDER}"`;

void describe("config.toml of containerd", () => {
  const merged = [
    {
      name: "gets a section at its end if it has none (Debian's own file)",
      current:
        'version = 2\n\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "registry.k8s.io/pause:3.6"\n',
      want: `version = 2\n\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "registry.k8s.io/pause:3.6"\n\n${V2}\n  ${KEY}\n`,
    },
    {
      name: "gets the section of its version",
      current: "version = 3",
      want: `version = 3\n\n${V3.replaceAll("'", '"')}\n  ${KEY}\n`,
    },
    {
      name: "gets a value for an empty key (containerd config default)",
      current: `version = 2\n    ${V2}\n      config_path = ""\n\n      ${V2.replace("]", ".mirrors]")}\n`,
      want: `version = 2\n    ${V2}\n      ${KEY}\n\n      ${V2.replace("]", ".mirrors]")}\n`,
    },
    {
      name: "gets a value for an empty key of version 3, and keeps the comment",
      current: `version = 3\n${V3}\nconfig_path = '' # none\n[x]\n`,
      want: `version = 3\n${V3}\n${KEY} # none\n[x]\n`,
    },
    {
      name: "gets the key in a section without it",
      current: `version = 2\n  ${V2}\n  [x]\n  a = 1\n`,
      want: `version = 2\n  ${V2}\n    ${KEY}\n  [x]\n  a = 1\n`,
    },
  ];
  for (const { name, current, want } of merged) {
    void it(name, () => {
      assert.deepEqual(mergeConfigToml(current, FOLDER), {
        isMerged: true,
        text: want,
      });
      assert.deepEqual(mergeConfigToml(want, FOLDER), {
        isMerged: true,
        text: want,
      });
    });
  }

  void it("stays as it is if it names the folder among others", () => {
    const text = `version = 3\n${V3}\nconfig_path = '${FOLDER}/:/etc/docker/certs.d'\n`;
    assert.deepEqual(mergeConfigToml(text, FOLDER), { isMerged: true, text });
  });

  const refused: readonly (readonly [string, string, RegExp])[] = [
    ["has no version", "[plugins.cri]\n", /got version 1;/],
    ["has an unknown version", "version = 4\n", /got version 4;/],
    [
      "has registries in the older form",
      `version = 2\n${V2.replace("]", '.mirrors."docker.io"]')}\nendpoint = []\n`,
      /got registries in registry\.mirrors/,
    ],
    [
      "names another folder",
      `version = 2\n${V2}\nconfig_path = "/other"\n`,
      /got another config_path;/,
    ],
    [
      "has the section of the other version",
      `version = 3\n${V2}\n`,
      /got another form/,
    ],
    [
      "has an inline table",
      'version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {}}\n',
      /got another form/,
    ],
    [
      "has a dotted key",
      'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nregistry.headers = 1\n',
      /got another form/,
    ],
    [
      "has a text of several lines",
      'version = 2\na = """\n[x]\n',
      /got another form/,
    ],
  ];
  for (const [name, current, message] of refused) {
    void it(`is refused if it ${name}`, () => {
      const result = mergeConfigToml(current, FOLDER);
      assert.ok(!result.isMerged);
      assert.match(result.flaw, message);
      assert.ok(result.flaw.includes(`\n  ${KEY}\n`));
    });
  }
});
