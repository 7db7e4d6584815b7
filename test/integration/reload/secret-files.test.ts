import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { AuditFile } from "../../support/audit-file.ts";
import { ChildMirror, hubConfig } from "../../support/child-mirror.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "secret" });
const MAIN = join(import.meta.dirname, "../../../src/main.ts");

function withPassword(origin: string, passwordFile: string): object {
  return {
    ...hubConfig(origin),
    upstreams: {
      "docker.io": {
        default: true,
        endpoints: [origin],
        access: "shared",
        credentials: { username: "acme", passwordFile },
        freshness: { tagTtl: "0s" },
      },
    },
  };
}

void describe("a secret that other users may read", () => {
  void it("is rejected at start with exit code 2, and by check-config with the same text", async (test) => {
    const dir = await tempDir(test);
    const secret = join(dir, "hub");
    await writeFile(secret, "canary-open");
    await chmod(secret, 0o644);
    const file = join(dir, "entrepot.yaml");
    const config = withPassword("http://127.0.0.1:1", secret);
    await writeFile(file, JSON.stringify({ ...config, listen: "127.0.0.1:0" }));
    for (const command of ["serve", "check-config"]) {
      const { code, stdout, stderr } = await run([command, "--config", file]);
      assert.deepEqual([code, stdout], [2, ""]);
      assert.equal(
        stderr,
        `${file}:1: upstreams.docker.io.credentials.passwordFile: got ${secret} (mode 0644, readable by every user of this machine); expected mode 0600, or 0640 with a group of the mirror; in Kubernetes defaultMode: 0440 with fsGroup; run chmod 0600 ${secret}\n`,
      );
    }
  });

  void it("is rejected at a reload, which keeps the old secret, and is used once its mode is private", async (test) => {
    const users: Record<string, string> = { acme: "canary-one" };
    const upstream = await ScriptedUpstream.start(test, {
      auth: { scheme: "basic", users },
    });
    upstream.content.addImage("library/app", IMAGE, "v");
    const dir = await tempDir(test);
    const secret = join(dir, "hub");
    const put = async (text: string, mode: number) => {
      await writeFile(`${secret}.new`, text);
      await chmod(`${secret}.new`, mode);
      await rename(`${secret}.new`, secret);
    };
    await put("canary-one", 0o640);
    const audit = new AuditFile(join(dir, "audit.jsonl"));
    const mirror = await ChildMirror.start(test, {
      dir,
      config: {
        ...withPassword(upstream.origin, secret),
        audit: { file: audit.path },
      },
    });
    assert.equal(await pull(mirror), 200);

    await put("canary-two", 0o644);
    const refused = await audit.find(({ event }) => event === "reload-refused");
    assert.match(
      String(refused["faults"]),
      /passwordFile: .*mode 0644, readable by every user of this machine.*; run chmod 0600 /,
    );
    // There is no new login either: the upstream still accepts the old one.
    assert.equal(await pull(mirror), 200);
    assert.equal(upstream.count({ status: 401 }), 1);

    users["acme"] = "canary-two";
    await chmod(secret, 0o600);
    const { changed } = await audit.find(({ event }) => event === "reloaded");
    assert.deepEqual(changed, ["upstreams"]);
    assert.equal(await pull(mirror), 200);
    assert.doesNotMatch(mirror.child.output(), /canary/);
    assert.doesNotMatch(await audit.text(), /canary/);
  });
});

void describe("a new configuration that names a secret other users may read", () => {
  void it("takes effect once the mode is repaired, without another change", async (test) => {
    const dir = await tempDir(test);
    const audit = new AuditFile(join(dir, "audit.jsonl"));
    const config = { upstreams: {}, audit: { file: audit.path } };
    const mirror = await ChildMirror.start(test, { dir, config });
    const file = join(dir, "entrepot.yaml");
    const secret = join(dir, "token");
    await writeFile(secret, "canary-0123456789");
    await chmod(secret, 0o644);
    const text = await readFile(file, "utf8");
    const written = JSON.parse(text) as { readonly operator: object };
    const operator = { ...written.operator, tokenFile: secret };
    await writeFile(file, JSON.stringify({ ...written, operator }));
    await audit.find(({ event }) => event === "reload-refused");
    await chmod(secret, 0o600);
    const { changed } = await audit.find(({ event }) => event === "reloaded");
    assert.deepEqual(changed, ["operator"]);
    assert.equal((await mirror.terminate()).code, 0);
  });
});

async function pull(mirror: ChildMirror): Promise<number> {
  const path = "/v2/library/app/manifests/v";
  const answer = await startRequest({ port: mirror.port, path }).response;
  // A stale answer would mean that the credentials failed.
  assert.doesNotMatch(answer.headers["cache-status"] ?? "", /stale$/);
  return answer.status;
}

function run(
  args: readonly string[],
): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}
