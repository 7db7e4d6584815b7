import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import { translateRegistryConfig } from "../../../src/cli/content/registry-config/registry-config.ts";
import { basic, htpasswdText } from "../../support/access.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { ChildMirror } from "../../support/child-mirror.ts";
import { buildImage } from "../../support/image-builder.ts";
import { tempDir } from "../../support/temp-dir.ts";

const { digest } = buildImage({ seed: "absent", layers: [10] }).manifest;

void describe("a translated configuration of Distribution", () => {
  for (const { name, storage, deletion } of [
    { name: "off", storage: {}, deletion: 403 },
    { name: "on", storage: { delete: { enabled: true } }, deletion: 404 },
  ]) {
    void it(`serves over TLS, to the users of its htpasswd file, with the deletion ${name}`, async (test) => {
      const dir = await tempDir(test);
      const authority = createCertificateAuthority();
      const { cert, key } = authority.issue();
      const mode = 0o600;
      await writeFile(join(dir, "tls.crt"), cert);
      await writeFile(join(dir, "tls.key"), key, { mode });
      const users = htpasswdText({ alice: "right horse" });
      await writeFile(join(dir, "htpasswd"), users, { mode });
      const rootdirectory = join(dir, "registry");
      await mkdir(rootdirectory);
      const file = join(dir, "config.yml");
      await writeFile(
        file,
        JSON.stringify({
          version: 0.1,
          log: { level: "warn", fields: { service: "registry" } },
          storage: {
            filesystem: { rootdirectory },
            cache: { blobdescriptor: "inmemory" },
            ...storage,
          },
          http: {
            addr: "127.0.0.1:0",
            debug: { addr: "127.0.0.1:0" },
            tls: { certificate: "tls.crt", key: "tls.key" },
          },
          auth: { htpasswd: { realm: "registry", path: "htpasswd" } },
          notifications: {
            endpoints: [{ name: "hook", url: "http://127.0.0.1:9/hook" }],
          },
        }),
      );
      const text = await translateRegistryConfig(file);
      const config = parseYaml(text) as Record<string, unknown>;
      const mirror = await ChildMirror.start(test, {
        dir,
        // The test reads the addresses from the log.
        config: { ...config, log: { level: "info" } },
      });
      const send = (method: string, path: string, authorization?: string) =>
        new Promise<number | undefined>((resolve, reject) => {
          request(
            {
              host: "127.0.0.1",
              port: mirror.port,
              ca: authority.cert,
              method,
              path,
              agent: false,
              headers: authorization === undefined ? {} : { authorization },
            },
            (response) => {
              response.resume();
              resolve(response.statusCode);
            },
          )
            .on("error", reject)
            .end();
        });
      const alice = basic("alice", "right horse");
      assert.equal(await send("GET", "/v2/"), 401);
      assert.equal(await send("GET", "/v2/", alice), 200);
      assert.equal(
        await send("POST", "/v2/team/app/blobs/uploads/", alice),
        202,
      );
      assert.equal(
        await send("DELETE", `/v2/team/app/manifests/${digest}`, alice),
        deletion,
      );
    });
  }
});
