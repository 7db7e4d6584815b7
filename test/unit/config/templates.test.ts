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

  void it("is described in a form that loads again", async (t) => {
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
    ["default: true", "default", /^got true in a template/],
    ["endpoints: [https://a.corp]", "endpoints", /^got a list in a template/],
    ["aliases: [a]", "aliases", /^got a list in a template/],
    ["hostnames: [a]", "hostnames", /^got a list in a template/],
    ["tokenRealms: [auth.corp]", "tokenRealms", /^got a list in a template/],
    [
      "access: shared, credentials: {username: a, password: hunter2}",
      "credentials",
      /^got credentials in a template/,
    ],
    [
      "tls: {insecureSkipVerify: true}",
      "tls.insecureSkipVerify",
      /^got true in a template/,
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
    void it(`is rejected with the name ${key}`, async (t) => {
      const folder = await makeConfigFolder(t);
      const printed = printedFaults(
        await folder.loadText(`upstreams: {${JSON.stringify(key)}: {}}\n`),
      );
      assert.match(
        printed.join(),
        /got an invalid name; expected a template in lower case/,
      );
    });
  }
});
