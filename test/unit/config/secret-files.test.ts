import assert from "node:assert/strict";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { htpasswdText } from "../../support/access.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import {
  type ConfigFolder,
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

const PAIR = createCertificateAuthority().issue();
const CANARY = "canary-0123456789";
const AUTHS = `{"auths":{"quay.io":{"username":"a","password":"${CANARY}"}}}`;

function quay(text: string): string {
  return `upstreams: { quay.io: { access: shared, ${text} } }`;
}

interface SecretCase {
  readonly key: string;
  /** A configuration that names the file `secret`. */
  readonly yaml: string;
  readonly text: string;
}

const SECRETS: readonly SecretCase[] = [
  {
    key: "upstreams.quay.io.credentials.passwordFile",
    yaml: quay("credentials: { username: a, passwordFile: secret }"),
    text: CANARY,
  },
  {
    key: "upstreams.quay.io.credentials.dockerConfigFile",
    yaml: quay("credentials: { dockerConfigFile: secret }"),
    text: AUTHS,
  },
  {
    key: "upstreams.quay.io.tls.keyFile",
    yaml: quay("tls: { certificateFile: tls.crt, keyFile: secret }"),
    text: PAIR.key,
  },
  {
    key: "tls.keyFile",
    yaml: "tls: { certificateFile: tls.crt, keyFile: secret }",
    text: PAIR.key,
  },
  {
    key: "operator.tokenFile",
    yaml: "operator: { tokenFile: secret }",
    text: CANARY,
  },
];

const PRIVATE =
  "mode 0600, or 0640 with a group of the mirror; in Kubernetes defaultMode: 0440 with fsGroup";

async function faultsOf(
  folder: ConfigFolder,
  { yaml, text }: SecretCase,
  mode: number,
): Promise<string[]> {
  await folder.write("tls.crt", PAIR.cert, 0o644);
  await folder.write("secret", text, mode);
  const result = await folder.loadText(yaml);
  assert.doesNotMatch(JSON.stringify(result), /canary|PRIVATE KEY/);
  return printedFaults(result);
}

void describe("a file with a secret", () => {
  for (const secret of SECRETS) {
    const { key } = secret;
    void it(`is rejected at ${key} if other users may read or change it`, async (test) => {
      const folder = await makeConfigFolder(test);
      const file = join(folder.path, "secret");
      for (const mode of [0o600, 0o400, 0o640, 0o440, 0o660]) {
        assert.deepEqual(await faultsOf(folder, secret, mode), []);
      }
      for (const [mode, seen] of [
        [0o644, "mode 0644, readable"],
        [0o604, "mode 0604, readable"],
        [0o602, "mode 0602, writable"],
        [0o666, "mode 0666, readable and writable"],
      ] as const) {
        assert.deepEqual(await faultsOf(folder, secret, mode), [
          `c.yaml:1: ${key}: got ${file} (${seen} by every user of this machine); expected ${PRIVATE}; run chmod 0600 ${file}`,
        ]);
      }
    });

    void it(`is rejected at ${key} in a folder where other users may replace it`, async (test) => {
      const folder = await makeConfigFolder(test);
      await chmod(folder.path, 0o777);
      assert.deepEqual(await faultsOf(folder, secret, 0o600), [
        `c.yaml:1: ${key}: got ${join(folder.path, "secret")} (in a folder that is writable by every user of this machine); expected a folder that only its owner and group may change; run chmod o-w ${folder.path}`,
      ]);
      // Sticky, as /tmp and Kubernetes volumes are.
      await chmod(folder.path, 0o1777);
      assert.deepEqual(await faultsOf(folder, secret, 0o600), []);
    });
  }

  void it("is not a Docker config.json that only names helpers", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("config.json", '{"credsStore":"desktop"}', 0o644);
    const yaml = quay("credentials: { dockerConfigFile: config.json }");
    assert.deepEqual(printedFaults(await folder.loadText(yaml)), []);
  });
});

void describe("a configuration file", () => {
  for (const { key, yaml } of [
    {
      key: "upstreams.quay.io.credentials[0].password",
      yaml: quay(
        `credentials: [{ username: a, password: ${CANARY} }, { username: b, password: ${CANARY} }]`,
      ),
    },
    {
      key: "upstreams.quay.io.proxy",
      yaml: quay(`proxy: "http://a:${CANARY}@proxy.corp:3128"`),
    },
  ]) {
    void it(`is rejected if other users may read it and it holds ${key}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const file = await folder.write("c.yaml", yaml, 0o644);
      const load = () => folder.load({ configFile: "c.yaml" });
      assert.deepEqual(printedFaults(await load()), [
        `c.yaml:1: ${key}: got ${file} (mode 0644, readable by every user of this machine); expected ${PRIVATE}; run chmod 0600 ${file}, or move the secret to a file of its own`,
      ]);
      await chmod(file, 0o640);
      assert.deepEqual(printedFaults(await load()), []);
    });
  }

  void it("may be readable by every user if it holds no secret", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("secret", CANARY);
    for (const text of [
      quay("credentials: { username: a, passwordFile: secret }"),
      quay('proxy: "http://proxy.corp:3128"'),
      "log: { level: info }",
    ]) {
      await folder.write("c.yaml", text, 0o644);
      const result = await folder.load({ configFile: "c.yaml" });
      assert.deepEqual(printedFaults(result), []);
    }
  });
});

void describe("a file without secrets", () => {
  void it("may be readable by every user: certificates, authorities, keys of a token server", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("tls.key", PAIR.key);
    await folder.write("tls.crt", PAIR.cert, 0o644);
    const result = await folder.loadText(`
tls: { certificateFile: tls.crt, keyFile: tls.key, clientCaFile: tls.crt }
access:
  anonymous: none
  tokenServer: { realm: "https://a.example", service: s, issuer: i, certificateFile: tls.crt }
upstreams: { quay.io: { tls: { caFile: tls.crt } } }
`);
    assert.deepEqual(
      [printedFaults(result), printedWarnings(result)],
      [[], []],
    );
  });

  void it("with users causes a warning if other users may read it, a fault if they may change it", async (test) => {
    const folder = await makeConfigFolder(test);
    const yaml = "access: { htpasswdFile: htpasswd, anonymous: none }";
    const users = htpasswdText({ alice: "pw" });
    const file = await folder.write("htpasswd", users, 0o644);
    const open = await folder.loadText(yaml);
    assert.deepEqual(printedFaults(open), []);
    assert.deepEqual(printedWarnings(open), [
      `c.yaml:1: access.htpasswdFile: got ${file} (password hashes that every user of this machine may read); expected mode 0600, or 0640 with a group of the mirror; run chmod 0600 ${file}`,
    ]);
    await folder.write("htpasswd", users, 0o646);
    assert.deepEqual(printedFaults(await folder.loadText(yaml)), [
      `c.yaml:1: access.htpasswdFile: got ${file} (mode 0646, writable by every user of this machine); expected a file that only its owner and group may change; run chmod o-w ${file}`,
    ]);
  });
});
