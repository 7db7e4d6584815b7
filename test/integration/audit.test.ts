import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { basic, startTokenIssuer, writeHtpasswd } from "../support/access.ts";
import { AuditFile, type AuditRecord } from "../support/audit-file.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { buildImage } from "../support/image-builder.ts";
import { startRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const ONE = buildImage({ seed: "one", layers: [5_000] });
const TWO = buildImage({ seed: "two", layers: [5_000] });
const MAIN = join(import.meta.dirname, "../../src/main.ts");
const REF = "docker.io/library/app:v";

interface Scene {
  readonly mirror: ChildMirror;
  readonly audit: AuditFile;
  readonly upstream: ScriptedUpstream;
  readonly file: string;
  readonly get: (path: string, authorization?: string) => Promise<number>;
  readonly run: (...args: readonly string[]) => Promise<Ended>;
}

interface Ended {
  readonly code: unknown;
  readonly stdout: string;
  readonly stderr: string;
}

async function setUp(
  test: TestContext,
  config: Readonly<Record<string, unknown>> = {},
): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", ONE, "v");
  const dir = await tempDir(test);
  const file = join(dir, "entrepot.yaml");
  const audit = new AuditFile(join(dir, "audit.jsonl"));
  const mirror = await ChildMirror.start(test, {
    dir,
    config: {
      upstreams: {
        "docker.io": {
          default: true,
          endpoints: [upstream.origin],
          freshness: { tagTtl: "0s" },
        },
      },
      audit: { file: audit.path },
      ...config,
    },
  });
  return {
    mirror,
    audit,
    upstream,
    file,
    get: async (path, authorization) => {
      const headers: Record<string, string> =
        authorization === undefined ? {} : { Authorization: authorization };
      const { port } = mirror;
      return (await startRequest({ port, path, headers }).response).status;
    },
    run: (...args) =>
      new Promise((resolve) => {
        const all = [MAIN, ...args, "--config", file];
        execFile(process.execPath, all, (error, stdout, stderr) => {
          resolve({ code: error?.code ?? 0, stdout, stderr });
        });
      }),
  };
}

/** Pulls complete images. */
async function pull({ get }: Scene, authorization?: string): Promise<void> {
  for (const path of [
    "manifests/v",
    ...ONE.blobs.map(({ digest }) => `blobs/${digest}`),
  ]) {
    assert.equal(await get(`/v2/library/app/${path}`, authorization), 200);
  }
}

/** Removes the fields that differ in each run. */
function withoutTime({ time, seq, ...record }: AuditRecord): AuditRecord {
  assert.match(String(time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.ok(Number.isSafeInteger(seq));
  return record;
}

void describe("the audit of a running mirror", () => {
  void it("records denials, failed logins and moved tags, each with the client and the object", async (test) => {
    const issuer = await startTokenIssuer(test);
    const { realm, service, issuer: name, keys } = issuer.config;
    const tokenServer = { realm, service, issuer: name, jwksFile: keys.file };
    const scene = await setUp(test, {
      access: {
        htpasswdFile: await writeHtpasswd(test, { alice: "pw", bob: "pw" }),
        tokenServer,
        anonymous: "none",
        rules: [
          { who: ["alice"], repositories: ["**/app"], actions: ["pull"] },
        ],
      },
    });
    const { get, upstream, audit } = scene;
    const tag = "/v2/library/app/manifests/v";
    const alice = basic("alice", "pw");
    await pull(scene, alice);
    assert.equal(await get(tag, basic("bob", "pw")), 404);
    assert.equal(await get("/v2/", basic("alice", "canary-wrong")), 401);
    assert.equal(await get("/v2/", basic("stranger", "canary-wrong")), 401);
    assert.equal(await get("/v2/", "Bearer canary.wrong.token"), 401);
    upstream.content.addImage("library/app", TWO, "v");
    assert.equal(await get(tag, alice), 200);
    for (let i = 0; i < 12; i++) {
      await get("/v2/", basic("alice", `canary-${i}`));
    }
    await audit.find(({ reason }) => reason === "limited");
    const records = (await audit.records()).map(withoutTime);
    const failed = { event: "login-failed", client: "127.0.0.1" };
    assert.deepEqual(records.slice(0, 5), [
      {
        event: "denied",
        client: "127.0.0.1",
        user: "bob",
        method: "GET",
        kind: "tag",
        repository: "docker.io/library/app",
        reference: "v",
      },
      { ...failed, user: "alice", reason: "password" },
      { ...failed, reason: "password" },
      { ...failed, reason: "token" },
      {
        event: "tag-moved",
        upstream: "docker.io",
        repository: "library/app",
        tag: "v",
        from: ONE.manifest.digest,
        to: TWO.manifest.digest,
      },
    ]);
    assert.deepEqual(records.at(-1), { ...failed, reason: "limited" });
    assert.doesNotMatch(await audit.text(), /canary/);
    assert.equal((await stat(audit.path)).mode & 0o777, 0o600);
  });

  void it("records reloads, and rejected ones with every fault", async (test) => {
    const { mirror, audit, file } = await setUp(test);
    const good = await readFile(file, "utf8");
    const offline = { ...(JSON.parse(good) as object), offline: true };
    await writeFile(file, JSON.stringify(offline));
    await audit.find(({ event }) => event === "reloaded");
    await writeFile(file, '{"listen": 5, "unknown": 1}');
    await audit.find(({ event }) => event === "reload-refused");
    await writeFile(file, good);
    mirror.child.signal("SIGHUP");
    await audit.find(({ source }) => source === "signal");
    const records = (await audit.records()).map(withoutTime);
    assert.deepEqual(records.at(0), {
      event: "reloaded",
      source: "file",
      changed: ["offline"],
    });
    const refused = records.find(({ event }) => event === "reload-refused");
    assert.deepEqual((refused?.["faults"] as string[] | undefined)?.length, 2);
    assert.deepEqual(
      records.findLast(({ source }) => source === "signal"),
      {
        event: "reloaded",
        source: "signal",
        changed: ["offline"],
      },
    );
  });
});

for (const { where, client } of [
  { where: "a running mirror", client: "127.0.0.1" },
  { where: "the storage itself", client: "command-line" },
]) {
  void describe(`the audit of commands by ${where}`, () => {
    void it("records pins, unpins and purges, but no reads and nothing about absent images", async (test) => {
      const scene = await setUp(test);
      const { mirror, audit, run } = scene;
      await pull(scene);
      const isRunning = where === "a running mirror";
      if (isRunning) await writeOperator(scene);
      else await mirror.terminate();
      const digest = ONE.manifest.digest;
      for (const [args, code] of [
        [["ls"], 0],
        [["pin", "docker.io/library/none:v"], 1],
        [["rm", "docker.io/library/none:v"], 1],
        [["pin", REF], 0],
        [["unpin", "docker.io/app:v"], 0],
        [["evict", "--to", "0B", "--dry-run"], 0],
        [["evict", "--to", "0B", "--yes"], 0],
      ] as const) {
        assert.equal((await run(...args)).code, code, args.join(" "));
      }
      if (isRunning) await audit.find(({ event }) => event === "purged");
      assert.deepEqual((await audit.records()).map(withoutTime), [
        { event: "pinned", client, reference: REF },
        { event: "unpinned", client, reference: REF },
        { event: "purged", client, reference: REF, digest },
      ]);
    });

    void it("records what rm drops", async (test) => {
      const scene = await setUp(test);
      const { mirror, audit, run } = scene;
      await pull(scene);
      if (where === "a running mirror") await writeOperator(scene);
      else await mirror.terminate();
      assert.equal((await run("rm", REF)).code, 0);
      const record = await audit.find(({ event }) => event === "purged");
      assert.deepEqual(withoutTime(record), {
        event: "purged",
        client,
        reference: REF,
      });
    });
  });
}

/** Commands find the mirror by the address in the file, whose port the system chose. */
async function writeOperator({ mirror, file }: Scene): Promise<void> {
  const config = JSON.parse(await readFile(file, "utf8")) as object;
  const { host } = new URL(mirror.operatorOrigin);
  const next = { ...config, operator: { listen: host } };
  await writeFile(file, JSON.stringify(next));
}

void describe("a command on the storage itself", () => {
  void it("fails without a change if the audit file can't be written", async (test) => {
    const scene = await setUp(test);
    const { mirror, run, file } = scene;
    await pull(scene);
    await mirror.terminate();
    const config = JSON.parse(await readFile(file, "utf8")) as object;
    const audit = { file: join(mirror.root, "no/audit.jsonl") };
    await writeFile(file, JSON.stringify({ ...config, audit }));
    const { code, stderr } = await run("rm", REF);
    assert.equal(code, 2);
    assert.match(stderr, /audit\.jsonl/);
    assert.match((await run("ls")).stdout, /docker\.io\/library\/app:v/);
  });

  void it("records on standard error if the mirror records on standard output", async (test) => {
    const scene = await setUp(test, { audit: { file: "-" } });
    await pull(scene);
    await scene.mirror.terminate();
    const { stdout, stderr } = await scene.run("pin", REF, "--json");
    assert.deepEqual(JSON.parse(stdout), { ref: REF, pinned: true });
    const record = withoutTime(JSON.parse(stderr) as AuditRecord);
    assert.equal(record["event"], "pinned");
  });
});
