import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import { htpasswdText } from "../../support/access.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { makeConfigFolder } from "../../support/config-folder.ts";

const FOLDER = join(import.meta.dirname, "../../../deploy/registry");
const SECRETS = "/run/secrets/entrepot";

void describe("deploy/registry", () => {
  void it("has a configuration that is valid, without a warning", async (test) => {
    const text = await readFile(join(FOLDER, "entrepot.yaml"), "utf8");
    const folder = await makeConfigFolder(test);
    const { cert, key } = createCertificateAuthority().issue();
    await folder.write("tls.crt", cert);
    await folder.write("tls.key", key);
    await folder.write("htpasswd", htpasswdText({ alice: "a", ci: "b" }));
    const result = await folder.loadText(
      text.replaceAll(SECRETS, folder.path),
      // As the image does.
      { env: { ENTREPOT_LISTEN: "0.0.0.0:5000" } },
    );
    assert.ok(result.ok, JSON.stringify(result));
    assert.deepEqual(result.warnings, []);
    const [hosted] = result.config.hosted;
    assert.equal(hosted?.isDefault, true);
    assert.equal(result.config.access?.anonymous, "none");
  });

  void it("has a compose file that mounts the configuration, its secrets and the content", async () => {
    const { services, volumes } = parseYaml(
      await readFile(join(FOLDER, "compose.yaml"), "utf8"),
    ) as {
      services: { registry: { build: string; volumes: string[] } };
      volumes: object;
    };
    const dockerfile = await readFile(
      join(FOLDER, services.registry.build, "Dockerfile"),
      "utf8",
    );
    const [, root] = /^VOLUME (\S+)$/m.exec(dockerfile) ?? [];
    assert.deepEqual(services.registry.volumes, [
      `content:${root}`,
      "./entrepot.yaml:/etc/entrepot/entrepot.yaml:ro",
      `./secrets:${SECRETS}:ro`,
    ]);
    assert.deepEqual(Object.keys(volumes), ["content"]);
  });
});
