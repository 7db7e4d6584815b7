import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import {
  ScriptedUpstream,
  type ScriptedUpstreamOptions,
} from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "tags" });
const TAGS = ["1.0", "1.1", "2.0", "edge", "latest"];
const LIST = "/v2/team/app/tags/list";
const TTL_MS = 600_000;

async function setUp(
  test: AfterTest,
  options: ScriptedUpstreamOptions = {},
  patienceMs?: number,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test, options);
  for (const tag of TAGS.toReversed()) {
    upstream.content.addImage("team/app", IMAGE, tag);
  }
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, { aliases: ["alias.example"] })],
    patienceMs === undefined ? {} : { patienceMs },
  );
  return { upstream, mirror };
}

function tagsOf(response: RawResponse): unknown {
  assert.equal(response.status, 200);
  assert.equal(response.headers["content-type"], "application/json");
  assert.equal(response.headers["content-length"], String(response.bodyBytes));
  return JSON.parse(response.body.toString());
}

void describe("a list of tags", () => {
  void it("is the upstream's, in ASCII order, from the cache for the tags' time to live", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const miss = await mirror.get(LIST);
    assert.deepEqual(tagsOf(miss), { name: "team/app", tags: TAGS });
    assert.equal(cacheStatusOf(miss), "fwd=miss; fwd-status=200; stored");
    assert.equal(miss.headers["age"], undefined);
    mirror.clock.advance(TTL_MS - 2_000);
    const hit = await mirror.get(LIST);
    assert.deepEqual(hit.body, miss.body);
    assert.equal(cacheStatusOf(hit), "hit; ttl=2");
    assert.equal(hit.headers["age"], "598");
    assert.equal(upstream.count(), 1);
    upstream.content.addImage("team/app", IMAGE, "new");
    mirror.clock.advance(2_000);
    const again = await mirror.get(LIST);
    assert.deepEqual(tagsOf(again), {
      name: "team/app",
      tags: [...TAGS, "new"],
    });
    assert.equal(cacheStatusOf(again), "fwd=stale; fwd-status=200; stored");
    assert.equal(upstream.count(), 2);
  });

  void it("answers HEAD with the headers of GET", async (test) => {
    const { mirror } = await setUp(test);
    const got = await mirror.get(LIST);
    const head = await mirror.head(LIST);
    assert.equal(head.headers["content-length"], String(got.bodyBytes));
    assert.equal(head.bodyBytes, 0);
  });

  for (const absoluteLinks of [false, true]) {
    void it(`is complete if the upstream sends pages with ${absoluteLinks ? "absolute" : "relative"} links`, async (test) => {
      const { upstream, mirror } = await setUp(test, {
        pageSize: 2,
        absoluteLinks,
      });
      const got = await mirror.get(LIST);
      assert.deepEqual(tagsOf(got), { name: "team/app", tags: TAGS });
      assert.equal(got.headers["link"], undefined);
      assert.equal(upstream.count({ kind: "tags" }), 3);
    });
  }

  void it("is paged by n and last, and its Link uses the client's spelling", async (test) => {
    const { upstream, mirror } = await setUp(test, { pageSize: 2 });
    for (const [spelling, query] of [
      ["/v2/team/app", ""],
      ["/v2/registry.example/team/app", ""],
      ["/alias.example/v2/team/app", ""],
      ["/v2/team/app", "&ns=alias.example"],
      ["/v2/registry.example/team/app", "&ns=alias.example"],
    ] as const) {
      const seen: string[] = [];
      let path: string | undefined = `${spelling}/tags/list?n=2${query}`;
      while (path !== undefined) {
        const got = await mirror.get(path);
        const { name, tags } = tagsOf(got) as { name: string; tags: string[] };
        assert.equal(name, spelling.replace(/^.*\/v2\//, ""));
        seen.push(...tags);
        const link = got.headers["link"];
        path = /^<(.*)>; rel="next"$/.exec(link ?? "")?.[1];
        if (path !== undefined) {
          assert.ok(path.startsWith(`${spelling}/tags/list?n=2&last=`), path);
          assert.ok(path.endsWith(query), path);
        } else assert.equal(link, undefined);
        assert.ok(tags.length === 2 || path === undefined);
      }
      assert.deepEqual(seen, TAGS);
    }
    assert.equal(upstream.count({ kind: "tags" }), 3);
  });

  void it("takes any number for n and any text for last", async (test) => {
    const { mirror } = await setUp(test);
    for (const [query, tags, hasLink] of [
      ["n=0", [], false],
      ["n=5", TAGS, false],
      ["n=4", TAGS.slice(0, 4), true],
      ["n=1000000000000", TAGS, false],
      ["last=1.1", TAGS.slice(2), false],
      ["last=1.05", TAGS.slice(1), false],
      ["last=zzz", [], false],
      [`last=${"a".repeat(5_000)}`, TAGS.slice(3), false],
      ["last=%00&n=1", TAGS.slice(0, 1), true],
    ] as const) {
      const got = await mirror.get(`${LIST}?${query}`);
      assert.deepEqual(tagsOf(got), { name: "team/app", tags }, query);
      assert.equal(got.headers["link"] !== undefined, hasLink, query);
    }
    for (const query of ["n=-1", "n=abc", "n=", "n=1&n=2", "n=1.5"]) {
      const got = await mirror.get(`${LIST}?${query}`);
      assert.deepEqual(
        [got.status, errorCode(got)],
        [400, "PAGINATION_NUMBER_INVALID"],
      );
    }
  });

  for (const n of [undefined, 2, 3]) {
    void it(`that is incomplete links to the rest, page by page (n: ${n})`, async (test) => {
      const { upstream, mirror } = await setUp(test, { pageSize: 2 });
      // The link to the third page is missing in the first response.
      upstream.when(
        { kind: "tags", where: ({ query }) => query.get("last") === "1.1" },
        { headers: { link: '<http://elsewhere.example/>; rel="next"' } },
        { times: 1 },
      );
      for (const count of [3, 0]) {
        upstream.forgetRequests();
        const seen: string[][] = [];
        let path: string | undefined =
          n === undefined ? LIST : `${LIST}?n=${n}`;
        while (path !== undefined) {
          const got = await mirror.get(path);
          seen.push((tagsOf(got) as { tags: string[] }).tags);
          path = /^<(.*)>; rel="next"$/.exec(got.headers["link"] ?? "")?.[1];
        }
        assert.deepEqual(seen.flat(), TAGS);
        assert.ok(
          seen.every((tags) => tags.length > 0),
          "every link leads to a page",
        );
        assert.equal(upstream.count(), count);
      }
    });
  }

  void it("that is incomplete is continued on request, without tags that the upstream repeats", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const everything = { tags: TAGS.slice(0, 3) };
    upstream.when(
      { kind: "tags" },
      {
        body: JSON.stringify(everything),
        headers: { link: '<http://elsewhere.example/>; rel="next"' },
      },
    );
    const rest = await mirror.get(`${LIST}?last=2.5`);
    assert.deepEqual(tagsOf(rest), { name: "team/app", tags: [] });
    assert.equal(rest.headers["link"], undefined);
    assert.deepEqual(
      upstream.requests().map(({ query }) => query.get("last")),
      [null, "2.5"],
    );
    await mirror.get(`${LIST}?last=%00zzz`);
    assert.equal(upstream.count(), 2);
  });

  void it("omits entries that are not tags", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const odd = [
      "b",
      null,
      7,
      IMAGE.config.digest,
      "../x",
      "",
      "a",
      "a",
      "x".repeat(129),
    ];
    upstream.when({ kind: "tags" }, { body: JSON.stringify({ tags: odd }) });
    assert.deepEqual(tagsOf(await mirror.get(LIST)), {
      name: "team/app",
      tags: ["a", "b"],
    });
  });

  void it("consists of the cached tags while the upstream is down, and is 502 without any", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get("/v2/team/app/manifests/edge");
    await mirror.get("/v2/team/app/manifests/1.1");
    upstream.forgetRequests();
    upstream.when({ kind: "tags" }, { status: 500 });
    const down = await mirror.get(LIST);
    assert.deepEqual(tagsOf(down), { name: "team/app", tags: ["1.1", "edge"] });
    assert.equal(
      cacheStatusOf(down),
      "fwd=stale; fwd-status=500; detail=stale",
    );
    assert.match(down.headers["warning"] ?? "", /^299 /);
    const none = await mirror.get("/v2/team/other/tags/list");
    assert.deepEqual([none.status, errorCode(none)], [502, "UNAVAILABLE"]);
    await upstream.stop();
    await mirror.get("/v2/team/app/manifests/2.0");
    const open = await mirror.get(LIST);
    assert.equal(cacheStatusOf(open), "hit; detail=stale");
  });

  for (const pageSize of [undefined, 2]) {
    void it(`is the last known one of any age while the upstream is down (upstream's page: ${pageSize})`, async (test) => {
      const { upstream, mirror } = await setUp(
        test,
        pageSize === undefined ? {} : { pageSize },
      );
      if (pageSize !== undefined) {
        // The link to the third page is missing in the first response.
        upstream.when(
          { kind: "tags", where: ({ query }) => query.get("last") === "1.1" },
          { headers: { link: '<http://elsewhere.example/>; rel="next"' } },
          { times: 1 },
        );
      }
      await mirror.get("/v2/team/app/manifests/edge");
      const seen = async (): Promise<readonly string[]> => {
        const tags: string[] = [];
        let path: string | undefined = `${LIST}?n=2`;
        while (path !== undefined) {
          const got = await mirror.get(path);
          tags.push(...(tagsOf(got) as { tags: string[] }).tags);
          const isStale = got.headers["warning"] !== undefined;
          assert.equal(isStale, isDown);
          if (isDown) assert.equal(got.headers["age"], String(7 * 86_400));
          path = /^<(.*)>; rel="next"$/.exec(got.headers["link"] ?? "")?.[1];
        }
        return tags;
      };
      let isDown = false;
      assert.deepEqual(await seen(), TAGS);
      isDown = true;
      await upstream.stop();
      mirror.clock.advance(7 * 86_400_000);
      assert.deepEqual(await seen(), TAGS);
      await mirror.reload({ offline: true });
      assert.deepEqual(await seen(), TAGS);
    });
  }

  void it("is the last known one after a restart too, if anything of the repository is cached", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addImage("team/other", IMAGE, "1");
    await mirror.get("/v2/team/app/manifests/edge");
    await mirror.get(LIST);
    await mirror.get("/v2/team/other/tags/list");
    upstream.forgetRequests();
    await mirror.restart();
    mirror.clock.advance(TTL_MS - 1_000);
    assert.equal(cacheStatusOf(await mirror.get(LIST)), "hit; ttl=1");
    assert.equal(upstream.count(), 0);
    await upstream.stop();
    await mirror.restart();
    mirror.clock.advance(86_400_000);
    const stale = await mirror.get(LIST);
    assert.deepEqual(tagsOf(stale), { name: "team/app", tags: TAGS });
    assert.match(stale.headers["warning"] ?? "", /^299 /);
    assert.equal(stale.headers["age"], "86999");
    const none = await mirror.get("/v2/team/other/tags/list");
    assert.equal(none.status, 503);
  });

  void it("is expired after a restart with a clock that was set back", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get("/v2/team/app/manifests/edge");
    mirror.clock.advance(3_600_000);
    await mirror.get(LIST);
    mirror.clock.setWall(mirror.clock.nowMs() - 1_800_000);
    await mirror.restart();
    upstream.forgetRequests();
    assert.deepEqual(tagsOf(await mirror.get(LIST)), {
      name: "team/app",
      tags: TAGS,
    });
    assert.equal(upstream.count({ kind: "tags" }), 1);
  });

  void it("is dropped when the upstream answers 404", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get(LIST);
    mirror.clock.advance(TTL_MS);
    upstream.when({ kind: "tags" }, { status: 404 });
    assert.equal((await mirror.get(LIST)).status, 404);
    mirror.clock.advance(TTL_MS);
    await mirror.restart();
    await upstream.stop();
    assert.equal((await mirror.get(LIST)).status, 502);
  });

  void it("is served from the cache immediately while the upstream is slow", async (test) => {
    const { upstream, mirror } = await setUp(test, {}, 100);
    await mirror.get("/v2/team/app/manifests/edge");
    const barrier = new Barrier();
    upstream.when({ kind: "tags" }, { hold: { at: "headers", barrier } });
    for (const status of ["fwd=stale; detail=stale", "hit; detail=stale"]) {
      const stale = await mirror.get(LIST);
      assert.deepEqual(tagsOf(stale), { name: "team/app", tags: ["edge"] });
      assert.equal(cacheStatusOf(stale), status);
    }
    barrier.release();
    const fresh = await mirror.answersWith(
      LIST,
      ({ headers }) => headers["warning"] === undefined,
    );
    assert.deepEqual(tagsOf(fresh), { name: "team/app", tags: TAGS });
    assert.equal(upstream.count({ kind: "tags" }), 1);
  });

  void it("of an absent repository is 404, from memory for notFoundTtl", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const status of ["fwd=miss; fwd-status=404", "hit; detail=negative"]) {
      const got = await mirror.get("/v2/none/tags/list");
      assert.deepEqual([got.status, errorCode(got)], [404, "NAME_UNKNOWN"]);
      assert.equal(cacheStatusOf(got), status);
    }
    assert.equal(upstream.count(), 1);
    mirror.clock.advance(30_000);
    await mirror.get("/v2/none/tags/list");
    assert.equal(upstream.count(), 2);
  });

  void it("is fetched once for concurrent requests", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({ kind: "tags" }, { hold: { at: "headers", barrier } });
    const asking = Array.from({ length: 10 }, () => mirror.get(LIST));
    await mirror.asked(10);
    await upstream.arrived(1);
    barrier.release();
    const statuses = (await Promise.all(asking)).map(cacheStatusOf);
    const collapsed = statuses.filter((one) => one === "fwd=miss; collapsed");
    assert.equal(collapsed.length, 9);
    assert.equal(upstream.count(), 1);
  });
});

void describe("the catalog", () => {
  void it("lists the cached repositories in pages, without upstream requests", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    for (const name of ["b", "a/x", "c"]) {
      upstream.content.addImage(name, IMAGE, "v");
    }
    const other = upstreamOf(upstream, {
      name: "other.example",
      isDefault: false,
      hostnames: ["other.internal"],
    });
    const mirror = await startMirror(test, [upstreamOf(upstream), other]);
    assert.deepEqual(tagsOf(await mirror.get("/v2/_catalog")), {
      repositories: [],
    });
    for (const name of ["b", "a/x", "other.example/c", "other.example/b"]) {
      await mirror.get(`/v2/${name}/manifests/v`);
    }
    upstream.forgetRequests();
    const all = [
      "other.example/b",
      "other.example/c",
      "registry.example/a/x",
      "registry.example/b",
    ];
    assert.deepEqual(tagsOf(await mirror.get("/v2/_catalog")), {
      repositories: all,
    });
    const seen: string[] = [];
    let path: string | undefined = "/v2/_catalog?n=3";
    while (path !== undefined) {
      const got = await mirror.get(path);
      seen.push(...(tagsOf(got) as { repositories: string[] }).repositories);
      path = /^<(.*)>; rel="next"$/.exec(got.headers["link"] ?? "")?.[1];
    }
    assert.deepEqual(seen, all);
    for (const [spelling, headers] of [
      ["/other.example/v2/_catalog", {}],
      ["/v2/_catalog?ns=other.example", {}],
      ["/v2/_catalog", { Host: "other.internal" }],
    ] as const) {
      const got = await mirror.get(spelling, headers);
      assert.deepEqual(tagsOf(got), { repositories: ["b", "c"] });
      const page = await mirror.get(
        `${spelling}${spelling.includes("?") ? "&" : "?"}n=1&last=b`,
        headers,
      );
      assert.deepEqual(tagsOf(page), { repositories: ["c"] });
    }
    const bad = await mirror.get("/v2/_catalog?n=-1");
    assert.equal(errorCode(bad), "PAGINATION_NUMBER_INVALID");
    assert.equal(upstream.count(), 0);
  });

  void it("lists an upstream with a port by its first alias that can be pulled, or not at all", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", IMAGE, "v");
    const make = (name: string, aliases: readonly string[]) =>
      upstreamOf(upstream, { name, aliases, isDefault: false });
    const mirror = await startMirror(test, [
      make("one.corp:5000", ["one.corp:443", "corp", "one"]),
      make("two.corp:5000", ["two.corp:443"]),
      make("plain.corp", ["aaa"]),
    ]);
    for (const name of ["one.corp:5000", "two.corp:5000", "plain.corp"]) {
      const got = await mirror.get(`/v2/app/manifests/v?ns=${name}`);
      assert.equal(got.status, 200);
    }
    const { repositories } = tagsOf(await mirror.get("/v2/_catalog")) as {
      repositories: string[];
    };
    assert.deepEqual(repositories, ["corp/app", "plain.corp/app"]);
    for (const name of repositories) {
      assert.equal((await mirror.get(`/v2/${name}/manifests/v`)).status, 200);
    }
    const own = await mirror.get("/v2/_catalog?ns=two.corp:5000");
    assert.deepEqual(tagsOf(own), { repositories: ["app"] });
    await mirror.restart({ upstreams: [make("plain.corp", [])] });
    assert.deepEqual(tagsOf(await mirror.get("/v2/_catalog")), {
      repositories: ["plain.corp/app"],
    });
  });
});
