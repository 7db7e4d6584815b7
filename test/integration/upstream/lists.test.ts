import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildArtifact, buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "lists" });
const TAGS = Array.from({ length: 7 }, (_, at) => `v${at}`);

type Options = NonNullable<Parameters<typeof ScriptedUpstream.start>[1]>;

/** 4 MB of tags. */
function largePage(at: number): string {
  const tags = Array.from(
    { length: 40_000 },
    (_, tag) => `p${at}-${tag}-${"x".repeat(90)}`,
  );
  return JSON.stringify({ tags });
}

void describe("a list of tags", () => {
  for (const options of [
    {},
    { pageSize: 3 },
    { pageSize: 3, absoluteLinks: true },
    { pageSize: 3, auth: { scheme: "bearer" } },
  ] satisfies readonly Options[]) {
    void it(`is read completely with ${JSON.stringify(options)}`, async (t) => {
      const upstream = await ScriptedUpstream.start(t, options);
      for (const tag of TAGS) upstream.content.addImage(ALPINE, IMAGE, tag);
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const list = await client.listTags(ALPINE, SIGNAL);
      assert.deepEqual(list, { tags: TAGS, isWhole: true });
      assert.equal(
        upstream.count({ kind: "tags", status: 200 }),
        options.pageSize === undefined ? 1 : 3,
      );
    });
  }

  void it("ends if its links form a cycle", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.content.addImage(ALPINE, IMAGE, "1");
    upstream.when(
      { kind: "tags" },
      {
        headers: { link: `</v2/${ALPINE}/tags/list?last=1>; rel="next"` },
      },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const list = await client.listTags(ALPINE, SIGNAL);
    assert.deepEqual(list, { tags: ["1"], isWhole: false });
    assert.equal(upstream.count(), 2);
  });

  void it("ends if a link leads to another origin, which is not requested", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const trap = await ScriptedUpstream.start(t);
    upstream.content.addImage(ALPINE, IMAGE, "1");
    upstream.when(
      { kind: "tags" },
      { headers: { link: `<${trap.origin}/v2/x/tags/list>; rel="next"` } },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const list = await client.listTags(ALPINE, SIGNAL);
    assert.deepEqual(list, { tags: ["1"], isWhole: false });
    assert.equal(trap.registry.connectionCount, 0);
  });

  void it("ends after a thousand pages", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.when({ kind: "tags" }, ({ query }) => {
      const page = Number(query.get("page") ?? 0);
      return {
        status: 200,
        body: `{"tags":["t${page}"]}`,
        headers: {
          link: `</v2/${ALPINE}/tags/list?page=${page + 1}>; rel="next"`,
        },
      };
    });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { tags, isWhole } = await client.listTags(ALPINE, SIGNAL);
    assert.equal(tags.length, 1_000);
    assert.equal(isWhole, false);
    assert.equal(upstream.count(), 1_000);
  });

  void it("ends at 10 MiB with the tags received so far", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.when({ kind: "tags" }, ({ query }) => {
      const at = Number(query.get("page") ?? 0);
      return {
        status: 200,
        body: largePage(at),
        headers: {
          link: `</v2/${ALPINE}/tags/list?page=${at + 1}>; rel="next"`,
        },
      };
    });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { tags, isWhole } = await client.listTags(ALPINE, SIGNAL);
    assert.equal(isWhole, false);
    assert.equal(tags.length, 80_000);
    assert.equal(upstream.count(), 3);
    assert.equal(client.isDown(), false);
  });

  void it("that breaks in a later page is rejected", async (t) => {
    const upstream = await ScriptedUpstream.start(t, { pageSize: 3 });
    for (const tag of TAGS) upstream.content.addImage(ALPINE, IMAGE, tag);
    upstream.when(
      { kind: "tags", where: ({ query }) => query.has("last") },
      { status: 504 },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const error = await upstreamErrorOf(client.listTags(ALPINE, SIGNAL));
    assert.equal(error.kind, "unavailable");
  });

  for (const [name, fault, kind] of [
    ["404", { status: 404 }, "not-found"],
    ["garbage", { status: 200, body: "[[[[" }, "bad-response"],
    ["a bomb", { status: 200, body: "[".repeat(4_000_000) }, "bad-response"],
    ["11 MiB", { status: 200, body: Buffer.alloc(11_534_336) }, "too-large"],
  ] as const) {
    void it(`that is ${name} is ${kind}`, async (t) => {
      const upstream = await ScriptedUpstream.start(t);
      upstream.when({ kind: "tags" }, fault);
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const error = await upstreamErrorOf(client.listTags(ALPINE, SIGNAL));
      assert.equal(error.kind, kind);
    });
  }
});

void describe("the referrers of a manifest", () => {
  const artifacts = Array.from({ length: 5 }, (_, at) =>
    buildArtifact({
      seed: `artifact ${at}`,
      subject: IMAGE.manifest,
      artifactType: "application/vnd.example",
    }),
  );

  for (const pageSize of [undefined, 2]) {
    void it(`are one image index, from ${pageSize === undefined ? "one page" : "three pages"}`, async (t) => {
      const upstream = await ScriptedUpstream.start(
        t,
        pageSize === undefined ? {} : { pageSize },
      );
      upstream.content.addImage(ALPINE, IMAGE, "1");
      for (const artifact of artifacts) {
        upstream.content.addImage(ALPINE, artifact);
      }
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const bytes = await client.getReferrers(
        ALPINE,
        IMAGE.manifest.digest,
        SIGNAL,
      );
      const index = JSON.parse(bytes.toString()) as {
        mediaType: string;
        manifests: readonly { digest: string }[];
      };
      assert.equal(index.mediaType, "application/vnd.oci.image.index.v1+json");
      assert.deepEqual(
        index.manifests.map(({ digest }) => digest),
        artifacts.map(({ manifest }) => manifest.digest),
      );
      assert.equal(upstream.count(), pageSize === undefined ? 1 : 3);
    });
  }

  for (const [name, fault, kind] of [
    ["404", { status: 404 }, "not-found"],
    ["HTML", { headers: { "content-type": "text/html" } }, "bad-response"],
    ["no index", { body: '{"manifests":7}' }, "bad-response"],
    ["too large", { body: Buffer.alloc(5_000_000, 0x20) }, "too-large"],
    [
      "without an end",
      { headers: { link: '<?page=0>; rel="next"' } },
      "bad-response",
    ],
  ] as const) {
    void it(`that are ${name} are ${kind}, never a partial list`, async (t) => {
      const upstream = await ScriptedUpstream.start(t);
      upstream.content.addImage(ALPINE, IMAGE, "1");
      upstream.when({ kind: "referrers" }, fault);
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const error = await upstreamErrorOf(
        client.getReferrers(ALPINE, IMAGE.manifest.digest, SIGNAL),
      );
      assert.equal(error.kind, kind);
    });
  }
});
