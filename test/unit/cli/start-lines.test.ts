import assert from "node:assert/strict";
import { test } from "node:test";
import { startLines } from "../../../src/cli/start-lines.ts";
import { makeConfigFolder } from "../../support/config-folder.ts";

const BOTH = { listen: ["127.0.0.1:5000"], operator: "127.0.0.1:5001" };
const PULL = "Try: docker pull 127.0.0.1:5000/docker.io/library/alpine";
const CURL = "Try: curl http://127.0.0.1:5000/v2/";

void test("without configuration the lines name addresses, registries and a pull", async (t) => {
  const folder = await makeConfigFolder(t);
  const loaded = await folder.load();
  assert.ok(loaded.ok);
  assert.deepEqual(startLines(loaded.config, BOTH), [
    "Listening on http://127.0.0.1:5000; operator API on http://127.0.0.1:5001",
    `Mirroring docker.io, quay.io, ghcr.io and 9 more, stored in ${folder.path}/data`,
    PULL,
  ]);
});

void test("replaces wildcard addresses by loopback in the command to try", async (t) => {
  const folder = await makeConfigFolder(t);
  const loaded = await folder.load();
  assert.ok(loaded.ok);
  for (const host of ["0.0.0.0", "[::]"]) {
    const bound = { listen: [`${host}:5000`], operator: undefined };
    const [where, , command] = startLines(loaded.config, bound);
    assert.equal(where, `Listening on http://${host}:5000`);
    assert.equal(command, PULL);
  }
});

/** A configuration, the line of registries up to the root, and the command. */
const ROWS: readonly (readonly [string, string, string])[] = [
  ["upstreams: { quay.io: }", "quay.io", CURL],
  ["upstreams: {}", "no registry", CURL],
  ["offline: true", "docker.io, quay.io, ghcr.io and 9 more (offline)", CURL],
  ["upstreams: { docker.io: { deny: ['**'] } }", "docker.io", CURL],
  [
    "access: { anonymous: pull, rules: [{ who: [a], repositories: ['**'], actions: [pull] }] }",
    "docker.io, quay.io, ghcr.io and 9 more",
    CURL,
  ],
  ["upstreams: { docker.io: , quay.io: }", "docker.io, quay.io", PULL],
];

for (const [yaml, registries, command] of ROWS) {
  void test(`match the configuration ${yaml}`, async (t) => {
    const folder = await makeConfigFolder(t);
    const loaded = await folder.loadText(yaml);
    assert.ok(loaded.ok);
    const [, mirrored, tried] = startLines(loaded.config, BOTH);
    assert.equal(
      mirrored,
      `Mirroring ${registries}, stored in ${folder.path}/data`,
    );
    assert.equal(tried, command);
  });
}
