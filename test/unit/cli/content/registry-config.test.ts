import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { translateRegistryConfig } from "../../../../src/cli/content/registry-config/registry-config.ts";
import type { Config } from "../../../../src/config/config.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { makeConfigFolder } from "../../../support/config-folder.ts";

const HASH = `alice:$2y$05$${"a".repeat(53)}\n`;

/** Translates a configuration in JSON, and loads the result. */
async function translate(
  test: AfterTest,
  config: Readonly<Record<string, unknown>>,
): Promise<{ readonly text: string; readonly config: Config }> {
  const folder = await makeConfigFolder(test);
  await folder.write("htpasswd", HASH);
  const file = await folder.write(
    "config.yml",
    JSON.stringify({ version: 0.1, storage: STORAGE, ...config }),
  );
  const text = await translateRegistryConfig(file);
  const loaded = await folder.loadText(text);
  assert(loaded.ok, text);
  return { text, config: loaded.config };
}

const STORAGE = { filesystem: { rootdirectory: "/var/lib/registry" } };

void describe("a configuration of Distribution", () => {
  void it("of a private registry becomes a hosted default registry", async (test) => {
    const { config } = await translate(test, {
      http: { addr: ":5000" },
      storage: {
        ...STORAGE,
        delete: { enabled: true },
        maintenance: { uploadpurging: { enabled: true, age: "36h30m" } },
      },
      log: { level: "warn", formatter: "text" },
    });
    const [hosted] = config.hosted;
    assert.equal(config.upstreams.length, 0);
    assert.deepEqual(config.listen, [{ host: "0.0.0.0", port: 5000 }]);
    assert.equal(config.storage.root, "/var/lib/registry/entrepot");
    assert.equal(config.access, undefined);
    assert.deepEqual(config.log, { level: "warn", format: "pretty" });
    assert.deepEqual(
      [hosted?.name, hosted?.isDefault, hosted?.anonymousPush],
      ["local", true, "anywhere"],
    );
    assert.equal(hosted?.uploadExpiryMs, 36.5 * 3_600_000);
  });

  for (const { name, storage, actions } of [
    { name: "deletion is off", storage: {}, actions: ["pull", "push"] },
    {
      name: "it is read-only",
      storage: {
        delete: { enabled: true },
        maintenance: { readonly: { enabled: true } },
      },
      actions: ["pull"],
    },
    {
      name: "deletion is on",
      storage: { delete: { enabled: true } },
      actions: undefined,
    },
  ]) {
    void it(`with htpasswd keeps the rights of its users while ${name}`, async (test) => {
      const { config } = await translate(test, {
        storage: { ...STORAGE, ...storage },
        auth: { htpasswd: { realm: "basic-realm", path: "htpasswd" } },
      });
      assert.equal(config.access?.anonymous, "none");
      assert.match(config.access?.htpasswdFile ?? "", /\/htpasswd$/);
      assert.deepEqual(config.access?.rules[0]?.actions, actions);
      assert.equal(config.hosted[0]?.anonymousPush, "loopback");
    });
  }

  void it("that is read-only and open accepts no push", async (test) => {
    const { config } = await translate(test, {
      storage: {
        ...STORAGE,
        maintenance: { readonly: { enabled: true } },
      },
    });
    assert.equal(config.hosted[0]?.anonymousPush, "none");
  });

  for (const { remoteurl, name, endpoints } of [
    {
      remoteurl: "https://registry-1.docker.io",
      name: "docker.io",
      endpoints: ["https://registry-1.docker.io"],
    },
    {
      remoteurl: "https://quay.io/",
      name: "quay.io",
      endpoints: ["https://quay.io"],
    },
    {
      remoteurl: "http://registry.corp:5000",
      name: "registry.corp:5000",
      endpoints: ["http://registry.corp:5000"],
    },
    {
      remoteurl: "https://harbor.corp/hub",
      name: "harbor.corp",
      endpoints: ["https://harbor.corp/hub"],
    },
    {
      remoteurl: "http://127.0.0.1:5000",
      name: "127.0.0.1:5000",
      endpoints: ["http://127.0.0.1:5000"],
    },
  ]) {
    void it(`that is a proxy of ${remoteurl} mirrors ${name} only`, async (test) => {
      const { config, text } = await translate(test, {
        proxy: { remoteurl, ttl: "168h" },
      });
      const [upstream] = config.upstreams;
      assert.equal(config.upstreams.length, 1);
      assert.deepEqual(config.hosted, []);
      assert.equal(upstream?.name, name);
      assert.equal(upstream?.isDefault, true);
      assert.deepEqual(upstream?.endpoints, endpoints);
      assert.deepEqual(upstream?.credentials, []);
      assert.match(text, new RegExp(`takeover .* --upstream ${name}'`));
      assert.match(text, /# - proxy\.ttl: /);
    });
  }

  for (const proxy of [
    { remoteurl: "https://quay.io", username: "me", password: "p@ss: 1" },
    { remoteurl: "https://me:p%40ss%3A%201@quay.io" },
  ]) {
    void it(`keeps the account of the upstream: ${Object.keys(proxy).join(", ")}`, async (test) => {
      const { config } = await translate(test, { proxy });
      const [credential] = config.upstreams[0]?.credentials ?? [];
      assert(credential !== undefined && "password" in credential);
      assert.equal(credential.username, "me");
      assert.equal(credential.password.reveal(), "p@ss: 1");
      assert.deepEqual(config.upstreams[0]?.endpoints, ["https://quay.io"]);
    });
  }

  void it("with a debug listener and notifications keeps them", async (test) => {
    const { config, text } = await translate(test, {
      http: {
        addr: "127.0.0.1:5000",
        debug: { addr: ":5001", prometheus: { enabled: true } },
      },
      notifications: {
        endpoints: [
          {
            name: "hook",
            url: "https://hooks.corp/x",
            headers: { Authorization: ["Bearer s3cret"] },
            ignore: { actions: ["pull"] },
            timeout: "1s",
          },
          { name: "off", url: "https://hooks.corp/y", disabled: true },
        ],
      },
    });
    assert.deepEqual(config.operator.listen, { host: "0.0.0.0", port: 5001 });
    assert.deepEqual(
      config.notifications.map(({ url, events }) => [url.reveal(), events]),
      [["https://hooks.corp/x", ["push", "delete", "mount"]]],
    );
    assert.match(text, /headers: write Authorization into a file/);
    assert.match(text, /# - notifications\.endpoints\.1: off is disabled/);
    assert.equal(text.includes("s3cret"), false);
  });

  void it("with TLS and a token server names their files", async (test) => {
    const folder = await makeConfigFolder(test);
    const file = await folder.write(
      "config.yml",
      JSON.stringify({
        version: 0.1,
        storage: STORAGE,
        http: {
          tls: { certificate: "a.crt", key: "a.key", clientcas: ["b", "c"] },
        },
        auth: {
          token: {
            realm: "https://auth.corp/token",
            service: "registry",
            issuer: "corp",
            rootcertbundle: "auth.crt",
          },
        },
      }),
    );
    const text = await translateRegistryConfig(file);
    const faults = await folder.loadText(text);
    assert(!faults.ok);
    assert.deepEqual(faults.faults.map(({ path }) => path).toSorted(), [
      "access.tokenServer.certificateFile",
      "tls.certificateFile",
      "tls.clientCaFile",
      "tls.keyFile",
    ]);
    assert.match(text, /clientcas: only the first .* certificates of c to it/);
    assert.match(text, /http\.tls\.key: the file must have mode 0600/);
  });

  void it("names every key that it leaves out, with the reason", async (test) => {
    const { text } = await translate(test, {
      storage: {
        ...STORAGE,
        cache: { blobdescriptor: "inmemory" },
        redirect: { disable: true },
        maintenance: { uploadpurging: { age: "1h", dryrun: true } },
      },
      http: { addr: ":5000", secret: "s3cret", headers: { A: ["b"] } },
      health: { storagedriver: { enabled: true } },
      redis: { addr: "redis:6379", password: "s3cret" },
      middleware: { registry: [] },
      "new\nkey": 1,
    });
    for (const line of [
      /^# - storage\.cache: not needed/m,
      /^# - storage\.redirect: the mirror always sends/m,
      /^# - storage\.maintenance\.uploadpurging\.dryrun: only age/m,
      /^# - http\.secret: not needed/m,
      /^# - http\.headers: /m,
      /^# - health: \/healthz/m,
      /^# - redis: not needed/m,
      /^# - middleware: /m,
      /^# - new.key: unknown key$/m,
    ]) {
      assert.match(text, line);
    }
    assert.equal(text.includes("s3cret"), false);
  });

  void it("is refused if it is not one, with the reason and without its text", async (test) => {
    const folder = await makeConfigFolder(test);
    const cases = [
      ["storage: {}", /expected a configuration of Distribution/],
      ["password: [s3cret", /bad\.yml:1: got /],
      ["- 1", /expected a configuration of Distribution/],
      ["", /expected a configuration of Distribution/],
    ] as const;
    for (const [text, message] of cases) {
      const file = await folder.write("bad.yml", text);
      await assert.rejects(translateRegistryConfig(file), (error: Error) => {
        assert.match(error.message, message);
        assert.equal(error.message.includes("s3cret"), false);
        return true;
      });
    }
    await assert.rejects(
      translateRegistryConfig(join(folder.path, "absent.yml")),
      /got no such file/,
    );
  });
});
