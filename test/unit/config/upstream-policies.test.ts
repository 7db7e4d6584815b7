import assert from "node:assert/strict";
import { test } from "node:test";
import { describeConfig } from "../../../src/config/describe.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";

function quay(keys: string): string {
  return `upstreams: { quay.io: { ${keys} } }`;
}

/** Keys of an upstream, and the fault that they cause. */
const FAULTS: readonly (readonly [string, string])[] = [
  [
    'allow: ["Library/*"]',
    'allow[0]: got "Library/*"; expected a pattern over repository[:tag] with * and **, such as "library/*"',
  ],
  [
    "redirectHosts: [10.0.0.0/33]",
    'redirectHosts[0]: got "10.0.0.0/33"; expected a CIDR such as 10.0.0.0/8 or fd00::/8, or a host',
  ],
  [
    "redirectHosts: [https://minio.corp]",
    'redirectHosts[0]: got "https://minio.corp"; expected a host, a host glob such as *.s3.corp, or a CIDR such as 10.0.0.0/8',
  ],
  [
    "bandwidth: 10 MiB",
    'bandwidth: got "10 MiB"; expected a size per second such as 10MiB, or 0',
  ],
  [
    "bandwidth: -1",
    "bandwidth: got -1; expected a size per second such as 10MiB, or 0",
  ],
  [
    "proxy: socks5://acme:hunter2@proxy.corp",
    "proxy: got an invalid proxy URL; expected an http or https URL without a path, or none",
  ],
  [
    "tls: { certificateFile: client.crt }",
    "tls.certificateFile: got certificateFile without keyFile; expected both or neither",
  ],
  [
    "tls: { keyFile: client.key, certificateFile: '' }",
    "tls.keyFile: got keyFile without certificateFile; expected both or neither",
  ],
];

for (const [keys, fault] of FAULTS) {
  void test(`reports the fault of ${keys.replace("hunter2", "…")}`, async (t) => {
    const folder = await makeConfigFolder(t);
    const printed = printedFaults(await folder.loadText(quay(keys)));
    assert.deepEqual(printed, [`c.yaml:1: upstreams.quay.io.${fault}`]);
  });
}

void test("reads a client certificate with its key, and rejects a wrong pair", async (t) => {
  const folder = await makeConfigFolder(t);
  const authority = createCertificateAuthority();
  const { cert, key } = authority.issue();
  const certificateFile = await folder.write("client.crt", cert);
  const keyFile = await folder.write("client.key", key);
  const text = quay(
    "tls: { certificateFile: client.crt, keyFile: client.key }",
  );
  const result = await folder.loadText(text);
  assert.deepEqual(printedFaults(result), []);
  assert.ok(result.ok);
  const [upstream] = result.config.upstreams;
  const { key: secret, ...shown } =
    upstream?.tls.clientCertificate ?? assert.fail();
  assert.equal(secret.reveal(), key);
  assert.deepEqual(shown, {
    certificate: cert.trim(),
    certificateFile,
    keyFile,
  });
  assert.deepEqual(result.sources.files, [certificateFile, keyFile]);
  assert.doesNotMatch(JSON.stringify(result), /PRIVATE KEY/);

  await folder.write("client.key", authority.issue().key);
  assert.deepEqual(printedFaults(await folder.loadText(text)), [
    `c.yaml:1: upstreams.quay.io.tls.keyFile: got ${keyFile} (not the key of the certificate); expected the PEM key of ${certificateFile}, without a passphrase`,
  ]);
  await folder.write("client.key", key, 0o644);
  assert.match(
    printedFaults(await folder.loadText(text))[0] ?? "",
    /keyFile: .*mode 0644, readable by every user of this machine.*; run chmod 0600 /,
  );
});

void test("describes a proxy without its password, and omits one of the environment", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = {
    HTTPS_PROXY: "http://env:hunter2@env.corp:3128",
    NO_PROXY: "quay.io,.corp",
  };
  const written = await folder.loadText(
    quay('proxy: "http://acme:hunter2@proxy.corp:3128"'),
    { env },
  );
  assert.ok(written.ok);
  const described = JSON.stringify(describeConfig(written.config));
  assert.match(described, /"proxy":"http:\/\/\[redacted\]@proxy\.corp:3128\/"/);
  assert.doesNotMatch(JSON.stringify(written) + described, /hunter2/);
  const [own] = written.config.upstreams;
  assert.equal(
    own?.proxy.http?.reveal(),
    "http://acme:hunter2@proxy.corp:3128/",
  );

  const absent = await folder.loadText(quay("default: true"), { env });
  assert.ok(absent.ok);
  const [upstream] = absent.config.upstreams;
  assert.equal(upstream?.proxy.source, "environment");
  assert.deepEqual(upstream.proxy.noProxy, ["quay.io", ".corp"]);
  assert.doesNotMatch(
    JSON.stringify(describeConfig(absent.config)),
    /proxy|hunter2/,
  );

  const none = await folder.loadText(quay("default: true, proxy: none"), {
    env,
  });
  assert.ok(none.ok);
  assert.equal(none.config.upstreams[0]?.proxy.https, undefined);
  assert.match(JSON.stringify(describeConfig(none.config)), /"proxy":"none"/);
});
