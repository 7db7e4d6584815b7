import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { mergeDaemonJson } from "../../../../../src/cli/setup/clients/daemon-json.ts";

const PLAIN = {
  mirrors: ["http://mirror.internal:5000"],
  insecure: ["mirror.internal:5000"],
  hosts: ["mirror.internal:5000"],
};
const TLS = {
  mirrors: ["https://mirror.internal:5000"],
  insecure: [],
  hosts: ["mirror.internal:5000"],
};

const FRESH = `{
  "registry-mirrors": ["http://mirror.internal:5000"],
  "insecure-registries": ["mirror.internal:5000"]
}
`;

void describe("daemon.json", () => {
  const cases = [
    { name: "is made if it is missing", current: undefined, want: FRESH },
    { name: "is made if it is empty", current: " \n", want: FRESH },
    {
      name: "keeps other keys, their order, and a layout of two blanks",
      current:
        '{\n  "log-driver": "local",\n  "dns": [\n    "192.0.2.1"\n  ]\n}\n',
      want: '{\n  "log-driver": "local",\n  "dns": [\n    "192.0.2.1"\n  ],\n  "registry-mirrors": [\n    "http://mirror.internal:5000"\n  ],\n  "insecure-registries": [\n    "mirror.internal:5000"\n  ]\n}\n',
    },
    {
      name: "keeps a layout of four blanks without a last line break",
      current: '{\n    "debug": true\n}',
      want: '{\n    "debug": true,\n    "registry-mirrors": [\n        "http://mirror.internal:5000"\n    ],\n    "insecure-registries": [\n        "mirror.internal:5000"\n    ]\n}\n',
    },
    {
      name: "keeps lists on one line",
      current: '{\n  "dns": ["192.0.2.1", "a, \\"b\\""]\n}\n',
      want: '{\n  "dns": ["192.0.2.1", "a, \\"b\\""],\n  "registry-mirrors": ["http://mirror.internal:5000"],\n  "insecure-registries": ["mirror.internal:5000"]\n}\n',
    },
    {
      name: "keeps entries of other hosts, with this mirror as the first one",
      current:
        '{\n  "registry-mirrors": ["https://other:5000/a"],\n  "insecure-registries": ["192.0.2.0/24"]\n}\n',
      want: '{\n  "registry-mirrors": ["http://mirror.internal:5000", "https://other:5000/a"],\n  "insecure-registries": ["192.0.2.0/24", "mirror.internal:5000"]\n}\n',
    },
    {
      name: "is left byte for byte if it has everything",
      current:
        '{"registry-mirrors":["http://mirror.internal:5000"], "insecure-registries":["mirror.internal:5000"]}',
      want: '{"registry-mirrors":["http://mirror.internal:5000"], "insecure-registries":["mirror.internal:5000"]}',
    },
  ];
  for (const { name, current, want } of cases) {
    void it(name, () => {
      const merged = mergeDaemonJson(current, PLAIN);
      assert.deepEqual(merged, { isMerged: true, text: want });
      // A second merge changes nothing.
      assert.deepEqual(mergeDaemonJson(want, PLAIN), merged);
    });
  }

  void it("drops plain HTTP to the mirror when it has TLS, and keeps it for other hosts", () => {
    const plain = mergeDaemonJson(
      '{\n  "insecure-registries": ["other:5000"]\n}\n',
      PLAIN,
    );
    assert.ok(plain.isMerged);
    const secured = mergeDaemonJson(plain.text, TLS);
    assert.ok(secured.isMerged);
    assert.deepEqual(JSON.parse(secured.text), {
      "insecure-registries": ["other:5000"],
      "registry-mirrors": ["https://mirror.internal:5000"],
    });
  });

  void it("replaces an older path or spelling of this mirror", () => {
    const merged = mergeDaemonJson(
      '{"registry-mirrors": ["HTTP://Mirror.internal:5000/docker.io/", "https://a"]}',
      TLS,
    );
    assert.ok(merged.isMerged);
    assert.deepEqual(JSON.parse(merged.text), {
      "registry-mirrors": ["https://mirror.internal:5000", "https://a"],
    });
  });

  for (const [name, current] of [
    ["is refused if it is invalid", '{"a": 1,}'],
    ["is refused if it is a list", "[]"],
    ["is refused if its mirrors are no list", '{"registry-mirrors": "a"}'],
    ["is refused if an entry is no text", '{"insecure-registries": [1]}'],
  ] as const) {
    void it(name, () => {
      const merged = mergeDaemonJson(current, PLAIN);
      assert.ok(!merged.isMerged);
      assert.match(merged.flaw, /^got .+; expected a /);
    });
  }
});
