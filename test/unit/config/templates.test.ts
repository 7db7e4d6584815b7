import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { describeConfig } from "../../../src/config/describe.ts";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

void describe("a template among the upstreams", () => {
  void it("is kept apart from them, with its settings", async (t) => {
    const folder = await makeConfigFolder(t);
    const result = await folder.loadText(
      'upstreams:\n  docker.io: {default: true}\n  "*":\n  "*.corp:8443": {redirectHosts: ["10.0.0.0/8"]}\n',
    );
    assert.deepEqual(printedFaults(result), []);
    assert.ok(result.ok);
    const { upstreams, upstreamTemplates } = result.config;
    assert.deepEqual(
      upstreams.map(({ name }) => name),
      ["docker.io"],
    );
    assert.deepEqual(upstreamTemplates, [
      { ...UPSTREAM_DEFAULTS, name: "*", endpoints: [] },
      {
        ...UPSTREAM_DEFAULTS,
        name: "*.corp:8443",
        endpoints: [],
        redirectHosts: ["10.0.0.0/8"],
      },
    ]);
  });

  void it("is printed so that it can be loaded again", async (t) => {
    const folder = await makeConfigFolder(t);
    const first = await folder.loadText('upstreams: {"*": {deny: ["a/**"]}}\n');
    assert.ok(first.ok);
    const text = JSON.stringify(describeConfig(first.config));
    const again = await folder.loadText(text);
    assert.deepEqual(printedFaults(again), []);
    assert.ok(again.ok);
    assert.deepEqual(
      again.config.upstreamTemplates,
      first.config.upstreamTemplates,
    );
  });

  const faults: readonly (readonly [
    text: string,
    place: string,
    seen: RegExp,
  ])[] = [
    ["default: true", "default", /^true at a template/],
    ["endpoints: [https://a.corp]", "endpoints", /^a list at a template/],
    ["aliases: [a]", "aliases", /^a list at a template/],
    ["hostnames: [a]", "hostnames", /^a list at a template/],
    ["tokenRealms: [auth.corp]", "tokenRealms", /^a list at a template/],
    [
      "access: shared, credentials: {username: a, password: hunter2}",
      "credentials",
      /^credentials at a template/,
    ],
    [
      "tls: {insecureSkipVerify: true}",
      "tls.insecureSkipVerify",
      /^true at a template/,
    ],
  ];
  for (const [text, place, seen] of faults) {
    void it(`may not have ${place}`, async (t) => {
      const folder = await makeConfigFolder(t);
      const printed = printedFaults(
        await folder.loadText(`upstreams: {"*.corp": {${text}}}\n`),
      );
      const head = `c.yaml:1: upstreams.*.corp.${place}: `;
      const line = printed.find((one) => one.startsWith(head));
      assert.ok(line !== undefined, printed.join("\n"));
      assert.match(line.slice(head.length), seen);
      assert.doesNotMatch(printed.join(), /hunter2/);
    });
  }

  void it("may not have a client certificate", async (t) => {
    const folder = await makeConfigFolder(t);
    const printed = printedFaults(
      await folder.loadText(
        'upstreams: {"*": {tls: {certificateFile: c.crt, keyFile: c.key}}}\n',
      ),
    );
    for (const key of ["certificateFile", "keyFile"]) {
      const head = `c.yaml:1: upstreams.*.tls.${key}: `;
      assert.ok(
        printed.some((one) => one.startsWith(head)),
        printed.join("\n"),
      );
    }
  });

  for (const key of ["*/x", "https://*", "*:port", "* .corp", "*.CORP"]) {
    void it(`has a key like a registry's, and not ${key}`, async (t) => {
      const folder = await makeConfigFolder(t);
      const printed = printedFaults(
        await folder.loadText(`upstreams: {${JSON.stringify(key)}: {}}\n`),
      );
      assert.match(
        printed.join(),
        /no registry's name; a template in lower case/,
      );
    });
  }
});
