import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { AuditFile } from "../../support/audit-file.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { ChildMirror } from "../../support/child-mirror.ts";
import { startRequest } from "../../support/raw-client.ts";
import { tempDir } from "../../support/temp-dir.ts";

void describe("a running mirror's configuration", () => {
  void it("names the keys that need a restart, and applies the others", async (test) => {
    const dir = await tempDir(test);
    const file = join(dir, "entrepot.yaml");
    const audit = new AuditFile(join(dir, "audit.jsonl"));
    const { cert, key } = createCertificateAuthority().issue();
    await writeFile(join(dir, "tls.crt"), cert);
    await writeFile(join(dir, "tls.key"), key, { mode: 0o600 });
    const mirror = await ChildMirror.start(test, {
      dir,
      config: { upstreams: {}, audit: { file: audit.path } },
    });
    const before = JSON.parse(await readFile(file, "utf8")) as object;
    const next = {
      ...before,
      listen: ["127.0.0.1:0", "127.0.0.2:0"],
      operator: { listen: false },
      storage: { root: join(dir, "elsewhere") },
      tls: { certificateFile: "tls.crt", keyFile: "tls.key" },
      offline: true,
      limits: { fills: 1 },
      trustedProxies: ["10.0.0.1"],
      scrub: { background: "off" },
      eviction: { maxIdle: "1d" },
      upstreams: { "quay.io": {} },
      access: { anonymousNetworks: ["10.0.0.0/8"] },
      log: { level: "debug", format: "pretty" },
    };
    await writeFile(file, JSON.stringify(next));
    mirror.child.signal("SIGHUP");
    const { changed } = await audit.find(({ event }) => event === "reloaded");
    const applied =
      "access eviction limits log offline scrub trustedProxies upstreams";
    assert.equal((changed as string[]).toSorted().join(" "), applied);
    // In the new log format.
    const warning = await mirror.child.line((line) =>
      line.includes("changed keys take effect after a restart")
        ? line
        : undefined,
    );
    assert.doesNotMatch(warning, /^\{/);
    for (const keys of ["listen", "operator.listen", "storage", "tls"]) {
      const quoted = `"${keys}"`;
      await mirror.child.line((line) =>
        line.includes(quoted) ? line : undefined,
      );
    }
    const { status } = await startRequest({ port: mirror.port, path: "/v2/" })
      .response;
    assert.equal(status, 401);
    assert.equal((await mirror.terminate()).code, 0);
  });
});
