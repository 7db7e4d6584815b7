import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

function env(text: string): { env: Record<string, string> } {
  return { env: { ENTREPOT_UPSTREAMS: text } };
}

void describe("ENTREPOT_UPSTREAMS", () => {
  for (const [form, text] of [
    ["JSON", '{"docker.io": {"default": true}, "quay.io": null}'],
    ["YAML on one line", "{docker.io: {default: true}, quay.io: }"],
    ["YAML", "docker.io:\n  default: true\nquay.io:\n"],
  ] as const) {
    void it(`replaces the mapping of the file, as ${form}`, async (t) => {
      const folder = await makeConfigFolder(t);
      const result = await folder.loadText(
        "upstreams:\n  ghcr.io: {default: true}\nlog: {level: warn}\n",
        env(text),
      );
      assert.deepEqual(printedFaults(result), []);
      assert.deepEqual(printedWarnings(result), []);
      assert.ok(result.ok);
      const { upstreams, log } = result.config;
      assert.deepEqual(
        upstreams.map(({ name, isDefault }) => [name, isDefault]),
        [
          ["docker.io", true],
          ["quay.io", false],
        ],
      );
      assert.equal(log.level, "warn");
      assert.deepEqual(result.sources.variables, ["ENTREPOT_UPSTREAMS"]);
    });
  }

  void it("counts as absent if it is empty, and an empty mapping mirrors nothing", async (t) => {
    const folder = await makeConfigFolder(t);
    const absent = await folder.load(env(""));
    assert.ok(absent.ok);
    assert.equal(absent.config.upstreams.length, 12);
    const nothing = await folder.load(env("{}"));
    assert.ok(nothing.ok);
    assert.deepEqual(nothing.config.upstreams, []);
  });

  void it("resolves its paths against the current folder, not the file's", async (t) => {
    const folder = await makeConfigFolder(t);
    await folder.write("secrets/hub", "secret");
    await folder.write("elsewhere/c.yaml", "log: {level: warn}\n");
    const result = await folder.load({
      configFile: "elsewhere/c.yaml",
      ...env(
        '{"docker.io": {"credentials": [{"username": "a", "passwordFile": "secrets/hub"}, {"helper": "./bin/helper"}], "access": "shared"}}',
      ),
    });
    const helper = join(folder.path, "bin/helper");
    assert.ok(printedFaults(result).join().includes(helper));
    const alone = await folder.load({
      configFile: "elsewhere/c.yaml",
      ...env(
        '{"docker.io": {"credentials": {"username": "a", "passwordFile": "secrets/hub"}, "access": "shared"}}',
      ),
    });
    assert.ok(alone.ok);
    assert.deepEqual(alone.sources.files, [join(folder.path, "secrets/hub")]);
  });

  const faults: readonly (readonly [string, string])[] = [
    [
      '{"docker.io": {"tagTtl": "5m"}}',
      "ENTREPOT_UPSTREAMS: upstreams.docker.io.tagTtl: got an unknown key; expected ",
    ],
    [
      '{"quay.io": {"endpoints": ["ftp://quay.io"]}}',
      'ENTREPOT_UPSTREAMS: upstreams.quay.io.endpoints[0]: got "ftp://quay.io"; expected ',
    ],
    [
      "docker.io:\n  default: true\nquay.io:\n  default: true\n",
      "ENTREPOT_UPSTREAMS:4: upstreams.quay.io.default: got true, as at upstreams.docker.io; expected ",
    ],
    ["[docker.io]", "ENTREPOT_UPSTREAMS: upstreams: got a list; expected "],
    ["docker.io", "ENTREPOT_UPSTREAMS: upstreams: got "],
    [
      "{docker.io: ",
      "ENTREPOT_UPSTREAMS: upstreams: got an open quote or bracket, or a key without a colon; expected ",
    ],
    ["null", "ENTREPOT_UPSTREAMS: upstreams: got no value; expected "],
    [
      "{docker.io: {credentials: {username: a, password: ''}}}",
      "ENTREPOT_UPSTREAMS: upstreams.docker.io.",
    ],
    [
      "{docker.io: {}, docker.io: {}}",
      "ENTREPOT_UPSTREAMS: upstreams.docker.io: got the same key as in line 1; expected ",
    ],
  ];
  for (const [text, want] of faults) {
    void it(`reports its name, the path inside and the value: ${JSON.stringify(text)}`, async (t) => {
      const folder = await makeConfigFolder(t);
      const printed = printedFaults(await folder.load(env(text)));
      assert.ok(
        printed.some((line) => line.startsWith(want)),
        printed.join("\n"),
      );
    });
  }

  void it("may hold a password, which no fault prints", async (t) => {
    const folder = await makeConfigFolder(t);
    const account =
      "{docker.io: {access: shared, credentials: {username: a, password: hunter2}, x: 1}}";
    const printed = printedFaults(await folder.load(env(account)));
    assert.equal(printed.length, 1);
    assert.doesNotMatch(printed.join(), /hunter2/);
    const good = await folder.load(env(account.replace(", x: 1", "")));
    assert.ok(good.ok);
    const [hub] = good.config.upstreams;
    assert.equal(hub?.credentials.length, 1);
  });

  void it("is suggested for a misspelled variable", async (t) => {
    const folder = await makeConfigFolder(t);
    const result = await folder.load({ env: { ENTREPOT_UPSTREAM: "{}" } });
    assert.match(
      printedWarnings(result).join(),
      /did you mean ENTREPOT_UPSTREAMS\?/,
    );
  });
});
