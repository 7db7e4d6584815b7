import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import {
  environmentName,
  readEnvironment,
  scalarPaths,
} from "../../../src/config/environment.ts";
import { CONFIG_SCHEMA } from "../../../src/config/schema/schema.ts";
import {
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

void test("every scalar outside upstreams and lists has a variable", () => {
  assert.deepEqual(
    [...scalarPaths(CONFIG_SCHEMA, [])].map(([name, { path }]) => [
      name,
      path.join("."),
    ]),
    [
      ["ENTREPOT_LISTEN", "listen"],
      ["ENTREPOT_TLS__CERTIFICATE_FILE", "tls.certificateFile"],
      ["ENTREPOT_TLS__KEY_FILE", "tls.keyFile"],
      ["ENTREPOT_TLS__CLIENT_CA_FILE", "tls.clientCaFile"],
      ["ENTREPOT_OPERATOR__LISTEN", "operator.listen"],
      ["ENTREPOT_OPERATOR__TOKEN_FILE", "operator.tokenFile"],
      ["ENTREPOT_STORAGE__ROOT", "storage.root"],
      ["ENTREPOT_EVICTION__MAX_SIZE", "eviction.maxSize"],
      ["ENTREPOT_EVICTION__MIN_FREE", "eviction.minFree"],
      ["ENTREPOT_EVICTION__MAX_IDLE", "eviction.maxIdle"],
      ["ENTREPOT_SCRUB__BACKGROUND", "scrub.background"],
      ["ENTREPOT_SCRUB__ON_READ", "scrub.onRead"],
      ["ENTREPOT_OFFLINE", "offline"],
      ["ENTREPOT_ACCESS__HTPASSWD_FILE", "access.htpasswdFile"],
      ["ENTREPOT_ACCESS__TOKEN_SERVER__REALM", "access.tokenServer.realm"],
      ["ENTREPOT_ACCESS__TOKEN_SERVER__SERVICE", "access.tokenServer.service"],
      ["ENTREPOT_ACCESS__TOKEN_SERVER__ISSUER", "access.tokenServer.issuer"],
      [
        "ENTREPOT_ACCESS__TOKEN_SERVER__JWKS_FILE",
        "access.tokenServer.jwksFile",
      ],
      [
        "ENTREPOT_ACCESS__TOKEN_SERVER__CERTIFICATE_FILE",
        "access.tokenServer.certificateFile",
      ],
      ["ENTREPOT_ACCESS__ANONYMOUS", "access.anonymous"],
      ["ENTREPOT_LIMITS__CONNECTIONS", "limits.connections"],
      [
        "ENTREPOT_LIMITS__CONNECTIONS_PER_ADDRESS",
        "limits.connectionsPerAddress",
      ],
      ["ENTREPOT_LIMITS__FILLS", "limits.fills"],
      ["ENTREPOT_LIMITS__UPLOADS", "limits.uploads"],
      ["ENTREPOT_AUDIT__FILE", "audit.file"],
      ["ENTREPOT_LOG__LEVEL", "log.level"],
      ["ENTREPOT_LOG__FORMAT", "log.format"],
    ],
  );
});

void test("separates words of a key by one underscore and levels by two, with a unique name per path", () => {
  assert.equal(
    environmentName(["eviction", "maxSize"]),
    "ENTREPOT_EVICTION__MAX_SIZE",
  );
  const key = fc
    .tuple(
      fc.stringMatching(/^[a-z][a-z0-9]{0,6}$/),
      fc.array(fc.stringMatching(/^[A-Z][a-z0-9]{0,6}$/), { maxLength: 3 }),
    )
    .map(([first, words]) => first + words.join(""));
  fc.assert(
    fc.property(fc.array(key, { minLength: 1, maxLength: 4 }), (path) => {
      const name = environmentName(path);
      assert.match(name, /^ENTREPOT_[A-Z0-9]+(?:__?[A-Z0-9]+)*$/);
      const readBack = name
        .slice("ENTREPOT_".length)
        .split("__")
        .map((level) =>
          level
            .toLowerCase()
            .replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()),
        );
      assert.deepEqual(readBack, path);
    }),
  );
});

void test("variables override the file, and arguments override variables", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = {
    ENTREPOT_LISTEN: "0.0.0.0:5000",
    ENTREPOT_OPERATOR__LISTEN: "false",
    ENTREPOT_OFFLINE: "false",
    ENTREPOT_LOG__LEVEL: "debug",
    ENTREPOT_LOG__FORMAT: "pretty",
    ENTREPOT_EVICTION__MIN_FREE: "0",
    PATH: "/bin",
  };
  const file =
    "listen: nowhere\noperator: { listen: '127.0.0.1:1' }\noffline: true\nlog: { level: warn }\n";
  const result = await folder.loadText(file, { env });
  assert.deepEqual(printedFaults(result), []);
  assert.ok(result.ok);
  const { listen, operator, offline, log, eviction } = result.config;
  assert.deepEqual(eviction.minFree, { bytes: 0 });
  assert.deepEqual(
    { listen, operator, offline, log },
    {
      listen: [{ host: "0.0.0.0", port: 5000 }],
      operator: { listen: undefined },
      offline: false,
      log: { level: "debug", format: "pretty" },
    },
  );
  assert.deepEqual(result.sources.variables, [
    "ENTREPOT_EVICTION__MIN_FREE",
    "ENTREPOT_LISTEN",
    "ENTREPOT_LOG__FORMAT",
    "ENTREPOT_LOG__LEVEL",
    "ENTREPOT_OFFLINE",
    "ENTREPOT_OPERATOR__LISTEN",
  ]);
  const overridden = await folder.load({ env, overrides: { offline: true } });
  assert.ok(overridden.ok && overridden.config.offline);
});

void test("an empty variable counts as absent", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.load({
    env: { ENTREPOT_LISTEN: "", ENTREPOT_NO_SUCH_KEY: "" },
  });
  assert.ok(result.ok);
  assert.deepEqual(result.config.listen, [{ host: "127.0.0.1", port: 5000 }]);
  assert.deepEqual(result.warnings, []);
});

void test("a fault of a variable names the variable, the key and the value", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = {
    ENTREPOT_LISTEN: "127.0.0.1:5000,[::1]:5000",
    ENTREPOT_OFFLINE: "1",
    ENTREPOT_EVICTION__MAX_SIZE: "10",
    ENTREPOT_LOG__LEVEL: "loud",
  };
  assert.deepEqual(
    printedFaults(await folder.loadText("log: {}\nlisten: a\n", { env })),
    [
      'ENTREPOT_LISTEN: listen: got "127.0.0.1:5000,[::1]:5000"; expected HOST:PORT, such as 127.0.0.1:5000 or, in quotes, "[::1]:5000", or a list of these',
      "ENTREPOT_EVICTION__MAX_SIZE: eviction.maxSize: got 10; expected a size with a unit such as 200GiB, a share of the file system such as 80%, or 0",
      'ENTREPOT_OFFLINE: offline: got "1"; expected true or false',
      'ENTREPOT_LOG__LEVEL: log.level: got "loud"; expected one of trace, debug, info, warn, error, fatal',
    ],
  );
});

void test("a variable below an invalid key of the file reports only the fault of the file", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = { ENTREPOT_LOG__LEVEL: "debug" };
  assert.deepEqual(printedFaults(await folder.loadText("log: 5\n", { env })), [
    "c.yaml:1: log: got 5; expected a mapping",
  ]);
  assert.deepEqual(printedFaults(await folder.loadText("log:\n", { env })), [
    "c.yaml:1: log: got no value; expected a mapping",
  ]);
});

void test("warns of unknown variables by name, never by value", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.load({
    env: {
      ENTREPOT_PORT: "tcp://10.0.0.1:5000",
      ENTREPOT_SERVICE_HOST: "10.0.0.1",
      ENTREPOT_LOG_LEVEL: "debug",
      ENTREPOT_UPSTREAMS__QUAY_IO__PASSWORD: "hunter2",
    },
  });
  assert.ok(result.ok);
  assert.equal(result.config.log.level, "info");
  const seen = "an environment variable that matches no key and is ignored";
  const none = "ENTREPOT_ and the path of a key, such as ENTREPOT_LOG__LEVEL";
  assert.deepEqual(printedWarnings(result), [
    `ENTREPOT_LOG_LEVEL: got ${seen}; expected ${none}; did you mean ENTREPOT_LOG__LEVEL?`,
    `ENTREPOT_PORT: got ${seen}; expected ${none}`,
    `ENTREPOT_SERVICE_HOST: got ${seen}; expected ${none}`,
    `ENTREPOT_UPSTREAMS__QUAY_IO__PASSWORD: got ${seen}; expected ${none}`,
  ]);
});

void test("a conflict between a variable and a default is reported at the default", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = { ENTREPOT_LISTEN: "127.0.0.1:5001" };
  assert.deepEqual(printedFaults(await folder.load({ env })), [
    "default: operator.listen: got 127.0.0.1:5001, an address of another listener; expected a port that no other listener uses",
  ]);
});

void test("sets only known keys and never throws, for any environment", () => {
  const name = fc.oneof(
    fc.string().map((text) => `ENTREPOT_${text}`),
    fc.constantFrom("ENTREPOT_LISTEN", "ENTREPOT_OFFLINE", "__proto__"),
  );
  const known = new Set(scalarPaths(CONFIG_SCHEMA, []).keys());
  fc.assert(
    fc.property(fc.dictionary(name, fc.string()), (env) => {
      const { values, warnings } = readEnvironment(env);
      for (const value of values) assert.ok(known.has(value.name));
      for (const { file } of warnings) assert.ok(Object.hasOwn(env, file));
    }),
  );
});
