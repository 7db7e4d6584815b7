import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import {
  type ClientAnswer,
  HostedClient,
} from "../../support/hosted-client.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { buildArtifact, buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

/*
 * Content of hosted repositories that a client may not pull: no answer differs from that for
 * repositories that do not exist, and no mount copies a blob out of them.
 */

const IMAGE = buildImage({ seed: "hosted rights" });
const SECRET = buildImage({ seed: "hosted rights, secret" });
const MIRRORED = buildImage({ seed: "hosted rights, mirrored" });
const SIGNATURE = buildArtifact({
  seed: "hosted rights, signature",
  subject: SECRET.manifest,
  artifactType: "application/vnd.example.signature",
});
const [SECRET_LAYER] = SECRET.layers;
const [MIRRORED_LAYER] = MIRRORED.layers;
assert.ok(SECRET_LAYER && MIRRORED_LAYER);
const UPSTREAM = "registry.example";
const ADMIN = { Authorization: basic("admin", "a") };
const BOB = { Authorization: basic("bob", "b") };

/** `admin` may do everything; `bob` pulls from and pushes to `pub`, and pulls from `mirrored/open`. */
async function setUp(test: TestContext): Promise<{
  readonly mirror: TestMirror;
  readonly as: (
    headers: Readonly<Record<string, string>>,
    repository: string,
  ) => HostedClient;
}> {
  const upstream = await ScriptedUpstream.start(test);
  for (const repository of ["mirrored/open", "mirrored/closed"]) {
    upstream.content.addImage(repository, MIRRORED, "v");
  }
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    access: accessConfig({
      htpasswdFile: await writeHtpasswd(test, { admin: "a", bob: "b" }),
      anonymous: "none",
      rules: [
        {
          who: ["admin"],
          repositories: ["**"],
          actions: ["push", "delete"],
        },
        {
          who: ["bob"],
          repositories: ["local/pub/**", "second/pub/**"],
          actions: ["push"],
        },
        {
          who: ["bob"],
          repositories: [`${UPSTREAM}/mirrored/open`],
          actions: ["pull"],
        },
      ],
    }),
    config: { hosted: [hostedConfig(), hostedConfig({ name: "second" })] },
  });
  const as = (
    headers: Readonly<Record<string, string>>,
    repository: string,
  ): HostedClient => new HostedClient(mirror.port, repository, headers);
  await as(ADMIN, "local/pub/app").push(IMAGE, "v");
  for (const registry of ["local", "second"]) {
    const secret = as(ADMIN, `${registry}/team/secret`);
    await secret.push(SECRET, "v");
    const { status } = await secret.putBlob(SIGNATURE.config);
    assert.equal(status, 201);
    await secret.push(SIGNATURE);
  }
  return { mirror, as };
}

function look({ status, headers, body }: ClientAnswer): unknown {
  const { date: _, ...others } = Object.fromEntries(headers);
  return [status, others, body.toString()];
}

void describe("hosted content", () => {
  void it("that a client may not pull is as absent content, for reads, and refused for writes", async (test) => {
    const { as } = await setUp(test);
    const reads = [
      "manifests/v",
      `manifests/${SECRET.manifest.digest}`,
      `blobs/${SECRET_LAYER.digest}`,
      `blobs/${SECRET.manifest.digest}`,
      "tags/list",
      "tags/list?n=1",
      `referrers/${SECRET.manifest.digest}`,
    ];
    const asks: readonly (readonly [string, string])[] = [
      ...["GET", "HEAD"].flatMap((method) =>
        reads.map((path) => [method, path] as const),
      ),
      ["DELETE", "manifests/v"],
      ["DELETE", `manifests/${SECRET.manifest.digest}`],
      ["DELETE", `blobs/${SECRET_LAYER.digest}`],
      ["PUT", "manifests/v"],
      ["POST", "blobs/uploads/"],
      [
        "POST",
        `blobs/uploads/?mount=${SECRET_LAYER.digest}&from=local/pub/app`,
      ],
      ["GET", "blobs/uploads/0123456789abcdef0123456789abcdef"],
    ];
    for (const registry of ["local", "second"]) {
      const there = as(BOB, `${registry}/team/secret`);
      const absent = as(BOB, `${registry}/team/absent`);
      // A repository without content that the client may pull from.
      const empty = as(BOB, `${registry}/pub/absent`);
      for (const [method, path] of asks) {
        const label = `${method} ${registry} ${path}`;
        const seen = look(await there.ask(method, path));
        const [status] = seen as [number];
        const isRead = /GET|HEAD/.test(method) && reads.includes(path);
        const isEmptyList = path.startsWith("referrers/");
        assert.equal(status, isRead ? (isEmptyList ? 200 : 404) : 403, label);
        assert.deepEqual(seen, look(await absent.ask(method, path)), label);
        if (!isRead) continue;
        assert.deepEqual(seen, look(await empty.ask(method, path)), label);
      }
    }
    const { body } = await as(BOB, "x").ask("GET", "../_catalog");
    assert.ok(!body.toString().includes("team"));
    assert.ok(body.toString().includes("local/pub/app"));
    // Nothing was changed by the attempts.
    const { status } = await as(ADMIN, "local/team/secret").get("manifests/v");
    assert.equal(status, 200);
  });

  void it("is not mounted from a repository that the client may not pull, named or not", async (test) => {
    const { as, mirror } = await setUp(test);
    for (const repository of [
      `${UPSTREAM}/mirrored/open`,
      `${UPSTREAM}/mirrored/closed`,
    ]) {
      const cached = as(ADMIN, repository);
      for (const path of ["manifests/v", `blobs/${MIRRORED_LAYER.digest}`]) {
        assert.equal((await cached.get(path)).status, 200);
      }
    }
    await mirror.settled();
    const statusOf = async (
      who: Readonly<Record<string, string>>,
      digest: string,
      from: string | undefined,
    ): Promise<number> => {
      const source = from === undefined ? "" : `&from=${from}`;
      const path = `blobs/uploads/?mount=${digest}${source}`;
      return (await as(who, "local/pub/target").ask("POST", path)).status;
    };
    for (const from of ["local/team/secret", "second/team/secret", undefined]) {
      assert.equal(
        await statusOf(BOB, SECRET_LAYER.digest, from),
        202,
        from ?? "any",
      );
    }
    const closed = `${UPSTREAM}/mirrored/closed`;
    assert.equal(await statusOf(BOB, MIRRORED_LAYER.digest, closed), 202);
    const target = as(BOB, "local/pub/target");
    for (const { digest } of [SECRET_LAYER, MIRRORED_LAYER]) {
      assert.equal((await target.head(`blobs/${digest}`)).status, 404);
    }
    const open = `${UPSTREAM}/mirrored/open`;
    assert.equal(await statusOf(BOB, MIRRORED_LAYER.digest, open), 201);
    assert.equal(
      (await target.head(`blobs/${MIRRORED_LAYER.digest}`)).status,
      200,
    );
    assert.equal(await statusOf(ADMIN, SECRET_LAYER.digest, undefined), 201);
  });
});
