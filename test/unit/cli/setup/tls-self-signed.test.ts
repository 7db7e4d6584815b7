import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, stat, writeFile } from "node:fs/promises";
import { createServer, get } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { runTlsSelfSigned } from "../../../../src/cli/setup/tls-self-signed.ts";
import { readServerTls } from "../../../../src/config/files/server-tls-files.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";
import { tempDir } from "../../../support/temp-dir.ts";

async function selfSigned(test: AfterTest, hosts: readonly string[]) {
  const cwd = await tempDir(test);
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const run = () =>
    runTlsSelfSigned({ hosts, out: "sub/tls", cwd, stdout, stderr });
  const code = await run();
  return { code, folder: join(cwd, "sub/tls"), stdout, stderr, run };
}

void describe("entrepot tls self-signed", () => {
  void it("writes a pair for names and addresses that cannot sign other certificates", async (test) => {
    const hosts = [
      "Mirror.internal",
      "*.mirror.corp",
      "192.0.2.7",
      "[::1]",
      "fd00::1:2",
    ];
    const { code, folder, stdout } = await selfSigned(test, hosts);
    assert.equal(code, 0);
    const certificateFile = join(folder, "tls.crt");
    const keyFile = join(folder, "tls.key");
    const own = new X509Certificate(await readFile(certificateFile));
    assert.equal(
      own.subjectAltName,
      "DNS:mirror.internal, DNS:*.mirror.corp, IP Address:192.0.2.7, IP Address:0:0:0:0:0:0:0:1, IP Address:FD00:0:0:0:0:0:1:2",
    );
    assert.equal(own.checkHost("mirror.internal"), "mirror.internal");
    assert.equal(own.checkHost("a.mirror.corp"), "*.mirror.corp");
    assert.equal(own.checkIP("::1"), "::1");
    assert.equal(own.checkIP("fd00::1:2"), "fd00::1:2");
    assert.equal(own.ca, false);
    assert.ok(own.verify(own.publicKey));
    assert.ok(own.checkPrivateKey(createPrivateKey(await readFile(keyFile))));
    const days = (own.validToDate.getTime() - Date.now()) / 86_400_000;
    assert.ok(days > 824 && days <= 825, String(days));
    assert.ok(own.validFromDate.getTime() < Date.now());
    assert.equal((await stat(keyFile)).mode & 0o777, 0o600);
    const read = await readServerTls({
      certificateFile,
      keyFile,
      clientCaFile: undefined,
    });
    assert.ok(read.ok);
    for (const path of [
      "/etc/docker/certs.d/mirror.internal:5000/ca.crt",
      "/etc/containers/certs.d/mirror.internal:5000/ca.crt",
      'ca = "/etc/containerd/entrepot.crt"',
      certificateFile,
    ]) {
      assert.ok(stdout.text.includes(path), path);
    }
  });

  void it("is trusted by a client that has only the certificate, by name and by address", async (test) => {
    const { folder } = await selfSigned(test, ["mirror.internal", "127.0.0.1"]);
    const cert = await readFile(join(folder, "tls.crt"), "utf8");
    const key = await readFile(join(folder, "tls.key"), "utf8");
    const server = createServer({ cert, key }, (_request, response) => {
      response.end("it is");
    });
    await new Promise<void>((resolve) =>
      server.listen(0, "127.0.0.1", resolve),
    );
    releaseAfter(test, () => {
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const ask = (servername?: string): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const options = { host: "127.0.0.1", port, ca: cert, agent: false };
        get(
          servername === undefined ? options : { ...options, servername },
          (response) => {
            response.resume();
            resolve(response.statusCode);
          },
        ).on("error", reject);
      });
    assert.equal(await ask(), 200);
    assert.equal(await ask("mirror.internal"), 200);
    await assert.rejects(ask("other.internal"), {
      code: "ERR_TLS_CERT_ALTNAME_INVALID",
    });
  });

  void it("overwrites no file", async (test) => {
    const { folder, run, stderr } = await selfSigned(test, ["a"]);
    const before = await readFile(join(folder, "tls.crt"), "utf8");
    assert.equal(await run(), 1);
    assert.match(stderr.text, /expected a folder without them/);
    assert.equal(await readFile(join(folder, "tls.crt"), "utf8"), before);
  });

  void it("removes the key if the certificate cannot be written", async (test) => {
    const cwd = await tempDir(test);
    await writeFile(join(cwd, "tls.crt"), "mine");
    const output = new CollectedOutput();
    const code = await runTlsSelfSigned({
      hosts: ["a"],
      out: ".",
      cwd,
      stdout: output,
      stderr: output,
    });
    assert.equal(code, 1);
    await assert.rejects(stat(join(cwd, "tls.key")), { code: "ENOENT" });
  });

  for (const host of [
    "a:5000",
    "http://a",
    "",
    "1.2.3",
    "a b",
    "-a",
    "a/b",
    "fe80::1%eth0",
  ]) {
    void it(`rejects ${JSON.stringify(host)} as a host`, async (test) => {
      const { code, stderr, folder } = await selfSigned(test, ["ok", host]);
      assert.equal(code, 2);
      assert.match(stderr.text, /without a port/);
      await assert.rejects(stat(folder), { code: "ENOENT" });
    });
  }
});
