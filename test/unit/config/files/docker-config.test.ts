import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  type DockerConfig,
  dockerServers,
  helperServer,
  parseDockerConfig,
} from "../../../../src/config/files/docker-config.ts";

function parse(content: unknown): DockerConfig {
  const config = parseDockerConfig(JSON.stringify(content));
  assert.ok(config);
  return config;
}

function loginsOf(config: DockerConfig): unknown[] {
  return [...config.logins].map(([host, login]) => [
    host,
    login.username,
    login.secret.reveal(),
    login.isIdentityToken,
  ]);
}

function auth(text: string): { auth: string } {
  return { auth: Buffer.from(text).toString("base64") };
}

void describe("a Docker config.json", () => {
  void it("returns passwords, base64 pairs and identity tokens by host", () => {
    const config = parse({
      auths: {
        "https://index.docker.io/v1/": auth("acme:pa:ss"),
        "quay.io": { username: "robot", password: "plain" },
        "https://Registry.Corp:5000/v2/": auth("padded:secret\0\0"),
        "azure.azurecr.io": {
          ...auth("00000000-0000-0000-0000-000000000000:"),
          identitytoken: "refresh",
        },
        "nameless.corp": { identitytoken: "token" },
      },
    });
    assert.deepEqual(loginsOf(config), [
      ["index.docker.io", "acme", "pa:ss", false],
      ["quay.io", "robot", "plain", false],
      ["registry.corp:5000", "padded", "secret", false],
      [
        "azure.azurecr.io",
        "00000000-0000-0000-0000-000000000000",
        "refresh",
        true,
      ],
      ["nameless.corp", "", "token", true],
    ]);
  });

  void it("returns helpers by host, and the store", () => {
    const config = parse({
      credHelpers: {
        "1.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login",
        "gcr.io": "gcr",
      },
      credsStore: "desktop",
    });
    assert.deepEqual(
      [...config.helpers],
      [
        ["1.dkr.ecr.eu-west-1.amazonaws.com", "ecr-login"],
        ["gcr.io", "gcr"],
      ],
    );
    assert.equal(config.store, "desktop");
  });

  void it("ignores invalid entries", () => {
    const config = parse({
      auths: {
        "empty.corp": {},
        "quay.io/acme": auth("only:a-part"),
        "colonless.corp": auth("nothing"),
        "no-user.corp": auth(":secret"),
        "blank.corp": auth("user:"),
        "number.corp": { username: 1, password: 2 },
        "null.corp": null,
      },
      credHelpers: {
        "path.corp": "../../bin/sh",
        "slash.corp": "a/b",
        "option.corp": "-x",
        "number.corp": 4,
      },
      credsStore: "../evil",
    });
    assert.deepEqual(loginsOf(config), []);
    assert.equal(config.helpers.size, 0);
    assert.equal(config.store, undefined);
  });

  for (const text of ["", "[]", "null", '"text"', "{", "12"]) {
    void it(`is rejected as ${JSON.stringify(text)}`, () => {
      assert.equal(parseDockerConfig(text), undefined);
    });
  }

  void it("never throws, for any content", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc
            .record({
              auths: fc.dictionary(fc.string(), fc.jsonValue()),
              credHelpers: fc.jsonValue(),
              credsStore: fc.jsonValue(),
            })
            .map((content) => JSON.stringify(content)),
        ),
        (text) => {
          parseDockerConfig(text);
        },
      ),
    );
  });

  void it("prints no secret", () => {
    const config = parse({ auths: { "quay.io": auth("acme:canary") } });
    assert.doesNotMatch(JSON.stringify([...config.logins]), /canary|Y2FuYXJ5/);
  });
});

void describe("the servers of an endpoint", () => {
  const TABLE = [
    [
      "https://registry-1.docker.io",
      ["index.docker.io", "docker.io", "registry-1.docker.io"],
      "https://index.docker.io/v1/",
    ],
    ["https://quay.io", ["quay.io", "quay.io:443"], "quay.io"],
    [
      "https://harbor.corp/hub",
      ["harbor.corp", "harbor.corp:443"],
      "harbor.corp",
    ],
    ["http://127.0.0.1:5000", ["127.0.0.1:5000"], "127.0.0.1:5000"],
    ["http://localhost", ["localhost", "localhost:80"], "localhost"],
  ] as const;
  for (const [endpoint, servers, helper] of TABLE) {
    void it(`${endpoint} are those of its own host`, () => {
      assert.deepEqual(dockerServers(new URL(endpoint)), servers);
      assert.equal(helperServer(new URL(endpoint)), helper);
    });
  }
});
