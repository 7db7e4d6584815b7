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
  /** Names the file `secret`. */
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

const RIGHT =
  ", or 0640 with a group that the mirror is in; in Kubernetes defaultMode: 0440 with fsGroup";

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
    void it(`is refused at ${key} where everybody may read or change it`, async (test) => {
      const folder = await makeConfigFolder(test);
      const file = join(folder.path, "secret");
      for (const mode of [0o600, 0o400, 0o640, 0o440, 0o660]) {
        assert.deepEqual(await faultsOf(folder, secret, mode), []);
      }
      for (const [mode, seen] of [
        [0o644, "mode 0644, a secret that everybody on this machine may read"],
        [0o604, "mode 0604, a secret that everybody on this machine may read"],
        [
          0o602,
          "mode 0602, a secret that everybody on this machine may change",
        ],
        [
          0o666,
          "mode 0666, a secret that everybody on this machine may read and change",
        ],
      ] as const) {
        assert.deepEqual(await faultsOf(folder, secret, mode), [
          `c.yaml:1: ${key}: ${file}: ${seen}; chmod 0600 ${file}${RIGHT}`,
        ]);
      }
    });

    void it(`is refused at ${key} in a folder where everybody may replace it`, async (test) => {
      const folder = await makeConfigFolder(test);
      await chmod(folder.path, 0o777);
      assert.deepEqual(await faultsOf(folder, secret, 0o600), [
        `c.yaml:1: ${key}: ${join(folder.path, "secret")}: in a folder where everybody on this machine may put another file in its place; chmod o-w ${folder.path}`,
      ]);
      // As /tmp, and the volumes of Kubernetes.
      await chmod(folder.path, 0o1777);
      assert.deepEqual(await faultsOf(folder, secret, 0o600), []);
    });
  }

  void it("is none where a Docker config.json names helpers alone", async (test) => {
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
    void it(`is refused where everybody may read it and it holds ${key}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const file = await folder.write("c.yaml", yaml, 0o644);
      const load = () => folder.load({ configFile: "c.yaml" });
      assert.deepEqual(printedFaults(await load()), [
        `c.yaml:1: ${key}: ${file}: mode 0644, a secret that everybody on this machine may read; chmod 0600 ${file}${RIGHT}; or the secret in a file of its own`,
      ]);
      await chmod(file, 0o640);
      assert.deepEqual(printedFaults(await load()), []);
    });
  }

  void it("may be read by everybody where it holds no secret", async (test) => {
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

void describe("a file that is no secret", () => {
  void it("may be read by everybody: certificates, authorities, keys of a token server", async (test) => {
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

  void it("is a file of users: warned of where everybody may read it, refused where they may change it", async (test) => {
    const folder = await makeConfigFolder(test);
    const yaml = "access: { htpasswdFile: htpasswd, anonymous: none }";
    const users = htpasswdText({ alice: "pw" });
    const file = await folder.write("htpasswd", users, 0o644);
    const open = await folder.loadText(yaml);
    assert.deepEqual(printedFaults(open), []);
    assert.deepEqual(printedWarnings(open), [
      `c.yaml:1: access.htpasswdFile: ${file}: hashes of passwords that everybody on this machine may read, and guess at; chmod 0600 ${file}, or 0640 with a group that the mirror is in`,
    ]);
    await folder.write("htpasswd", users, 0o646);
    assert.deepEqual(printedFaults(await folder.loadText(yaml)), [
      `c.yaml:1: access.htpasswdFile: ${file}: mode 0646, a file that everybody on this machine may change; chmod o-w ${file}`,
    ]);
  });
});
