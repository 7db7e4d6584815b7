import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import {
  accessConfig,
  basic,
  htpasswdText,
  writeHtpasswd,
} from "../../support/access.ts";
import { Barrier } from "../../support/barrier.ts";
import { ChildMirror, hubConfig } from "../../support/child-mirror.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { startRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const OLD = buildImage({ seed: "old" });
const NEW = buildImage({ seed: "new" });
const TAG = "/v2/library/app/manifests/v";

async function two(
  test: TestContext,
): Promise<{ old: ScriptedUpstream; fresh: ScriptedUpstream }> {
  const old = await ScriptedUpstream.start(test);
  const fresh = await ScriptedUpstream.start(test);
  old.content.addImage("library/app", OLD, "v");
  fresh.content.addImage("library/app", NEW, "v");
  return { old, fresh };
}

void describe("a reload", () => {
  void it("routes requests to the new upstreams, while downloads from the old ones continue", async (test) => {
    const { old, fresh } = await two(test);
    const blob = seededBlob("long", 1_000_000);
    old.content.addBlob("library/big", blob);
    const barrier = new Barrier();
    old.when({ kind: "blob" }, { hold: { at: 500_000, barrier } });
    const mirror = await startMirror(test, [upstreamOf(old)]);
    const long = mirror.start(`/v2/library/big/blobs/${blob.digest}`);
    await long.received(100_000);

    const changed = await mirror.reload({
      upstreams: [upstreamOf(fresh, { name: "other.example" })],
    });
    assert.deepEqual(changed, ["upstreams"]);
    const answer = await mirror.get(TAG);
    assert.equal(answer.headers["docker-content-digest"], NEW.manifest.digest);
    assert.equal(old.count({ kind: "manifest" }), 0);

    barrier.release();
    const { status, bodyBytes, end } = await long.response;
    assert.deepEqual([status, bodyBytes, end], [200, 1_000_000, "complete"]);
  });

  void it("keeps an unchanged upstream with its connections, tokens and breaker", async (test) => {
    const { old } = await two(test);
    const upstream = upstreamOf(old);
    const mirror = await startMirror(test, [upstream]);
    await mirror.get(TAG);
    assert.deepEqual(await mirror.reload({ upstreams: [{ ...upstream }] }), []);
  });

  void it("detects a changed password", async (test) => {
    const { old } = await two(test);
    const withPassword = (text: string) =>
      upstreamOf(old, {
        credentials: [{ username: "a", password: new Secret(text) }],
      });
    const mirror = await startMirror(test, [withPassword("one")]);
    const reload = (text: string) =>
      mirror.reload({ upstreams: [withPassword(text)] });
    assert.deepEqual(await reload("one"), []);
    assert.deepEqual(await reload("two"), ["upstreams"]);
  });

  void it("revokes rights from the next request on, and does not end a running one (S24, K7)", async (test) => {
    const { old } = await two(test);
    const blob = seededBlob("held", 1_000_000);
    old.content.addBlob("library/app", blob);
    const barrier = new Barrier();
    old.when({ kind: "blob" }, { hold: { at: 500_000, barrier } });
    const htpasswdFile = await writeHtpasswd(test, { alice: "pw" });
    const access = accessConfig({ htpasswdFile, anonymous: "none" });
    const mirror = await startMirror(test, [upstreamOf(old)], { access });
    const headers = { Authorization: basic("alice", "pw") };
    const path = `/v2/library/app/blobs/${blob.digest}`;
    const running = mirror.start(path, { headers });
    await running.received(100_000);
    assert.equal((await mirror.get(TAG, headers)).status, 200);

    const changed = await mirror.reload({
      access: {
        ...access,
        rules: [{ who: ["bob"], repositories: ["**"], actions: ["pull"] }],
      },
    });
    assert.deepEqual(changed, ["access"]);
    assert.equal((await mirror.get(TAG, headers)).status, 404);
    assert.equal((await mirror.get(path, headers)).status, 404);
    barrier.release();
    assert.equal((await running.response).bodyBytes, 1_000_000);
  });

  void it("answers every client whose password is being checked", async (test) => {
    const { old } = await two(test);
    const htpasswdFile = await writeHtpasswd(test, { alice: "pw" });
    // A bcrypt cost that takes longer than the reload.
    await writeFile(htpasswdFile, htpasswdText({ alice: "pw" }, 10));
    const access = accessConfig({ htpasswdFile, anonymous: "none" });
    const mirror = await startMirror(test, [upstreamOf(old)], { access });
    const logIns = ["wrong", "pw", "wrong too", "pw", "wrong again"].map(
      (password) =>
        mirror.get(TAG, { Authorization: basic("alice", password) }),
    );
    await mirror.asked(logIns.length);
    await mirror.reload({
      access: {
        ...access,
        rules: [{ who: ["alice"], repositories: ["**"], actions: ["pull"] }],
      },
    });
    const statuses = (await Promise.all(logIns)).map(({ status }) => status);
    assert.deepEqual(statuses, [401, 200, 401, 200, 401]);
  });

  void it("applies access and upstreams together: new rules never apply to the old upstreams", async (test) => {
    const { old, fresh } = await two(test);
    const htpasswdFile = await writeHtpasswd(test, { alice: "pw" });
    const mirror = await startMirror(test, [upstreamOf(old)], {
      access: accessConfig({ htpasswdFile, anonymous: "none" }),
    });
    const headers = { Authorization: basic("alice", "pw") };
    // The bcrypt threads have started, so that it takes a while to end them.
    assert.equal((await mirror.get(TAG, headers)).status, 200);
    const reload = { isOver: false };
    const reloading = mirror
      .reload({
        access: accessConfig({ anonymous: "pull" }),
        upstreams: [upstreamOf(fresh, { name: "other.example" })],
      })
      .finally(() => (reload.isOver = true));
    const seen: (string | undefined)[] = [];
    do {
      const { status, headers: received } = await mirror.get(TAG);
      seen.push(status === 200 ? received["docker-content-digest"] : "refused");
    } while (!reload.isOver || !seen.includes(NEW.manifest.digest));
    await reloading;
    assert.ok(!seen.includes(OLD.manifest.digest), seen.join(" "));
  });

  void it("keeps the old access if a file of the new one is invalid", async (test) => {
    const { old } = await two(test);
    const htpasswdFile = await writeHtpasswd(test, { alice: "pw" });
    const access = accessConfig({ htpasswdFile, anonymous: "none" });
    const mirror = await startMirror(test, [upstreamOf(old)], { access });
    await assert.rejects(
      mirror.reload({
        access: { ...access, htpasswdFile: `${htpasswdFile}.absent` },
        upstreams: [],
      }),
    );
    assert.equal((await mirror.get(TAG)).status, 401);
    const headers = { Authorization: basic("alice", "pw") };
    assert.equal((await mirror.get(TAG, headers)).status, 200);
  });
});

void describe("a running mirror", () => {
  void it("reloads its file at SIGHUP and after a change, rejects an invalid one, and records both", async (test) => {
    const { old, fresh } = await two(test);
    const dir = await tempDir(test);
    const file = join(dir, "entrepot.yaml");
    const audit = join(dir, "audit.jsonl");
    const mirror = await ChildMirror.start(test, {
      dir,
      config: { ...hubConfig(old.origin), audit: { file: audit } },
    });
    const digest = async () => {
      const { headers } = await startRequest({ port: mirror.port, path: TAG })
        .response;
      return headers["docker-content-digest"];
    };
    const audited = async (count: number) => {
      for (let left = 400; left > 0; left--) {
        const text = await readFile(audit, "utf8");
        const lines = text.split("\n").filter((line) => line !== "");
        if (lines.length >= count) {
          return lines.map(
            (line) => JSON.parse(line) as Record<string, unknown>,
          );
        }
        await new Promise((resolve) => setTimeout(resolve, 25));
      }
      throw new Error(mirror.child.output());
    };
    assert.equal(await digest(), OLD.manifest.digest);
    const good = JSON.parse(await readFile(file, "utf8")) as object;

    // Noticed by the file watch, without a signal.
    await writeFile(file, '{"listen": 5, "upstreams": {}}');
    const [refused] = await audited(1);
    assert.equal(refused?.["event"], "reload-refused");
    assert.equal(refused["source"], "file");
    assert.match(
      String(refused["faults"]),
      /entrepot\.yaml:1: listen: got 5; expected /,
    );
    assert.equal(await digest(), OLD.manifest.digest);

    const next = {
      ...good,
      upstreams: {
        "docker.io": {
          default: true,
          endpoints: [fresh.origin],
          freshness: { tagTtl: "0s" },
        },
      },
    };
    await writeFile(file, JSON.stringify(next));
    mirror.child.signal("SIGHUP");
    const [, reloaded] = await audited(2);
    assert.equal(reloaded?.["event"], "reloaded");
    assert.deepEqual(reloaded["changed"], ["upstreams"]);
    assert.equal(await digest(), NEW.manifest.digest);
    const [, , moved] = await audited(3);
    assert.deepEqual(
      [moved?.["event"], moved?.["tag"], moved?.["from"], moved?.["to"]],
      ["tag-moved", "v", OLD.manifest.digest, NEW.manifest.digest],
    );
    assert.equal((await mirror.terminate()).code, 0);
  });
});
