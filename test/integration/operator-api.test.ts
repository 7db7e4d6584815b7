import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Ajv } from "ajv";
import { bundleMembers, tarOf } from "../support/bundle-archive.ts";
import { hostedConfig } from "../support/hosted-config.ts";
import { buildImage, buildMultiArch } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import type { MirrorStatus } from "../../src/http/operator/api-status.ts";
import { keepJob } from "../support/kept-jobs.ts";
import { pullImage } from "../support/pull-image.ts";
import { startRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import type { AfterTest } from "../support/after-test.ts";

const RECEIVED =
  'entrepot_upstream_received_bytes_total{upstream="registry.example"}';
const JOB = "0mjuohs00";
const APP = "registry.example/library/app";
const single = buildImage({ seed: "single", layers: [5_000, 6_000] });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });

interface Operation {
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, unknown>> }>
  >;
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

function hasJson({ responses }: Operation): boolean {
  return responses["200"]?.content?.["application/json"] !== undefined;
}

/** The document with every described object closed: a member that is not described is a fault. */
function withoutOtherMembers(document: unknown): object {
  return JSON.parse(
    JSON.stringify(document),
    (_key, value: Readonly<Record<string, unknown>> | null) =>
      value?.["type"] === "object" && value["properties"] !== undefined
        ? { ...value, additionalProperties: false }
        : value,
  ) as object;
}

function jsonBody(body: string): RequestInit {
  return { body, headers: { "content-type": "application/json" } };
}

function pointer(...parts: readonly string[]): string {
  const escaped = parts.map((part) =>
    encodeURIComponent(part.replaceAll("/", "~1")),
  );
  return `api#/${escaped.join("/")}`;
}

interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly errors: unknown;
}

async function setUp(
  test: AfterTest,
): Promise<{ mirror: TestMirror; upstream: ScriptedUpstream }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", single, "1");
  upstream.content.addIndex("library/app", multi, "2");
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: { hosted: [hostedConfig()] },
  });
  mirror.clock.advance(1_000);
  await pullImage(mirror, "library/app", "1");
  mirror.clock.advance(1_000);
  await pullImage(mirror, "library/app", "2");
  return { mirror, upstream };
}

function sizeOf(...parts: readonly { sizeBytes: number }[]): number {
  return parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

function codeOf(answer: { readonly body: unknown }): string | undefined {
  const { errors } = answer.body as { errors?: { code: string }[] };
  return errors?.[0]?.code;
}

void describe("the operator API", () => {
  void it("refuses a request with more than one host (S22)", async (test) => {
    const mirror = await startMirror(test, []);
    const ask = (target: string, hosts: readonly string[]) =>
      startRequest({
        port: mirror.operatorPort,
        path: "",
        raw: `GET ${target} HTTP/1.1\r\n${hosts.map((host) => `Host: ${host}\r\n`).join("")}Connection: close\r\n\r\n`,
      }).response;
    for (const [target, hosts, status] of [
      ["/api/v1/status", ["127.0.0.1"], 200],
      ["/api/v1/status", ["127.0.0.1", "evil.example"], 403],
      ["/api/v1/status", ["evil.example", "127.0.0.1"], 403],
      ["/api/v1/status", [], 403],
      ["http://evil.example/api/v1/status", ["127.0.0.1"], 403],
      ["http://127.0.0.1/api/v1/status", ["evil.example"], 403],
      ["/api/v1/status", ["evil.example@127.0.0.1"], 403],
      ["/api/v1/status", ["127.0.0.1, evil.example"], 403],
    ] as const) {
      const got = await ask(target, hosts);
      assert.equal(got.status, status, `${target} ${hosts.join(" ")}`);
    }
  });

  void it("lists images with size, completeness, pin and last pull", async (test) => {
    const { mirror } = await setUp(test);
    const [platform] = multi.images;
    assert(platform !== undefined);
    assert.deepEqual(await mirror.operate("GET", "/images"), {
      status: 200,
      body: {
        images: [
          {
            ref: `${APP}:1`,
            digest: single.manifest.digest,
            mediaType: single.manifest.mediaType,
            sizeBytes: sizeOf(single.manifest, ...single.blobs),
            complete: true,
            pinned: false,
            hosted: false,
            pulledAt: "2026-01-01T00:00:01.000Z",
            platforms: [
              {
                platform: "linux/amd64",
                digest: single.manifest.digest,
                complete: true,
              },
            ],
          },
          {
            ref: `${APP}:2`,
            digest: multi.manifest.digest,
            mediaType: multi.manifest.mediaType,
            sizeBytes: sizeOf(
              multi.manifest,
              platform.manifest,
              ...platform.blobs,
            ),
            complete: true,
            pinned: false,
            hosted: false,
            pulledAt: "2026-01-01T00:00:02.000Z",
            platforms: ["linux/amd64", "linux/arm64/v8"].map((name, at) => ({
              platform: name,
              digest: multi.images[at]?.manifest.digest,
              complete: at === 0,
            })),
          },
        ],
        last: null,
      },
    });
  });

  void it("pages the list, and filters it by pattern or text", async (test) => {
    const { mirror } = await setUp(test);
    const refsOf = async (query: string) => {
      const { body } = await mirror.operate("GET", `/images${query}`);
      const { images, last } = body as {
        images: { ref: string }[];
        last: string | null;
      };
      return [images.map(({ ref }) => ref), last];
    };
    assert.deepEqual(await refsOf("?n=1"), [[`${APP}:1`], `${APP}:1`]);
    assert.deepEqual(
      await refsOf(`?n=1&last=${encodeURIComponent(`${APP}:1`)}`),
      [[`${APP}:2`], null],
    );
    assert.deepEqual(await refsOf("?n=2"), [[`${APP}:1`, `${APP}:2`], null]);
    assert.deepEqual(await refsOf("?q=app:2"), [[`${APP}:2`], null]);
    assert.deepEqual(
      await refsOf(`?q=${encodeURIComponent("registry.example/**:1")}`),
      [[`${APP}:1`], null],
    );
    assert.deepEqual(await refsOf("?q=absent"), [[], null]);
    for (const [query, code] of [
      ["?n=0", "PAGINATION_NUMBER_INVALID"],
      ["?n=x", "PAGINATION_NUMBER_INVALID"],
      ["?last=x", "NAME_INVALID"],
      ["?q=a&q=b", "NAME_INVALID"],
    ] as const) {
      const answer = await mirror.operate("GET", `/images${query}`);
      assert.deepEqual([answer.status, codeOf(answer)], [400, code], query);
    }
  });

  void it("returns the graph of an image, missing parts included", async (test) => {
    const { mirror } = await setUp(test);
    const { body } = await mirror.operate("GET", `/images/${APP}:2`);
    const { graph } = body as {
      graph: {
        digest: string;
        kind: string;
        stored: boolean;
        sizeBytes: number | null;
      }[];
    };
    const [here, absent] = multi.images;
    assert(here !== undefined && absent !== undefined);
    assert.equal(graph[0]?.digest, multi.manifest.digest);
    const stored = new Map(graph.map((part) => [part.digest, part.stored]));
    assert.equal(stored.get(here.manifest.digest), true);
    assert.equal(stored.get(absent.manifest.digest), false);
    assert.ok(here.blobs.every(({ digest }) => stored.get(digest) === true));
    assert.equal(graph.length, 1 + 2 + here.blobs.length);
    const kinds = new Map(graph.map((part) => [part.digest, part.kind]));
    for (const { manifest } of [multi, ...multi.images]) {
      assert.equal(kinds.get(manifest.digest), "manifest");
    }
    assert.equal(kinds.get(here.config.digest), "config");
    for (const { digest } of here.layers) {
      assert.equal(kinds.get(digest), "blob");
    }
    assert.ok(graph.every(({ sizeBytes }) => (sizeBytes ?? 0) > 0));
  });

  void it("pins, purges and refreshes an image by reference", async (test) => {
    const { mirror, upstream } = await setUp(test);
    for (const [method, pinned] of [
      ["PUT", true],
      ["DELETE", false],
    ] as const) {
      assert.deepEqual(await mirror.operate(method, `/images/${APP}:1/pin`), {
        status: 200,
        body: { ref: `${APP}:1`, pinned },
      });
    }
    upstream.content.addImage("library/app", single, "2");
    assert.deepEqual(await mirror.operate("POST", `/images/${APP}:2/refresh`), {
      status: 200,
      body: { ref: `${APP}:2`, digest: single.manifest.digest, changed: true },
    });
    // Includes the referrers list that the refresh fetched.
    const bytes = await mirror.metric("entrepot_storage_bytes");
    const { body } = await mirror.operate(
      "DELETE",
      `/images/${APP}@${multi.manifest.digest}`,
    );
    const { freedBytes } = body as { freedBytes: number };
    assert.equal(
      await mirror.metric("entrepot_storage_bytes"),
      bytes - freedBytes,
    );
    assert.ok(freedBytes > 7_000);
    for (const [method, path] of [
      ["GET", `/images/${APP}:absent`],
      ["DELETE", `/images/${APP}:absent`],
      ["PUT", `/images/${APP}:absent/pin`],
      ["POST", `/images/${APP}:absent/refresh`],
    ] as const) {
      const answer = await mirror.operate(method, path);
      assert.deepEqual(
        [answer.status, codeOf(answer)],
        [404, "MANIFEST_UNKNOWN"],
        path,
      );
    }
    for (const path of [
      "/images/App",
      "/images/a:",
      "/images/a/B",
      "/images/a/b@x",
    ]) {
      const answer = await mirror.operate("GET", path);
      assert.deepEqual([answer.status, codeOf(answer)], [400, "NAME_INVALID"]);
    }
  });

  void it("finds the action at the end of the path, escaped or not, and never in the query", async (test) => {
    const { mirror } = await setUp(test);
    const escaped = encodeURIComponent(`${APP}:1/pin`);
    for (const [method, pinned] of [
      ["PUT", true],
      ["DELETE", false],
    ] as const) {
      assert.deepEqual(await mirror.operate(method, `/images/${escaped}`), {
        status: 200,
        body: { ref: `${APP}:1`, pinned },
      });
    }
    const answer = await mirror.operate("DELETE", `/images/${APP}:1?by=/pin`);
    assert.equal(answer.status, 200);
    assert.equal((await mirror.operate("GET", `/images/${APP}:1`)).status, 404);
  });

  void it("reports a path that can't be decoded as problem details", async (test) => {
    const mirror = await startMirror(test, []);
    const answer = await fetch(`${mirror.operatorOrigin}/api/v1/images/%zz`);
    assert.equal(answer.status, 400);
    for (const [name, value] of [
      ["content-type", /^application\/problem\+json/],
      ["cache-control", /^no-store$/],
      ["x-content-type-options", /^nosniff$/],
    ] as const) {
      assert.match(answer.headers.get(name) ?? "", value);
    }
    const body: unknown = await answer.json();
    assert.equal(codeOf({ body }), "UNSUPPORTED");
  });

  void it("lists the images that an eviction would remove, and evicts them", async (test) => {
    const { mirror } = await setUp(test);
    const asked = { toBytes: 10_000, dryRun: true };
    const would = await mirror.operate("POST", "/evict", asked);
    const { images, freedBytes } = would.body as {
      images: { ref: string; reason: string }[];
      freedBytes: number;
    };
    assert.deepEqual(
      images.map(({ ref, reason }) => [ref, reason]),
      [[`${APP}:1`, "operator"]],
    );
    const before = await mirror.metric("entrepot_storage_bytes");
    const done = await mirror.operate("POST", "/evict", { toBytes: 10_000 });
    assert.deepEqual(done.body, { ...(would.body as object), dryRun: false });
    assert.equal(
      await mirror.metric("entrepot_storage_bytes"),
      before - freedBytes,
    );
    for (const body of [{ toBytes: -1 }, { toBytes: "1" }, { dry: true }, []]) {
      const answer = await mirror.operate("POST", "/evict", body);
      assert.equal(answer.status, 400, JSON.stringify(body));
    }
  });

  void it("reports version, upstreams and stored content in its status", async (test) => {
    const { mirror } = await setUp(test);
    const { body } = await mirror.operate("GET", "/status");
    const { storage, upstreams, ...status } = body as {
      storage: Record<string, unknown>;
      upstreams: string[];
      health: unknown;
      cache: MirrorStatus["cache"];
      running: unknown;
    };
    assert.deepEqual(upstreams, ["registry.example"]);
    assert.deepEqual(status.health, {
      ready: true,
      detail: { index: "ok", storage: "ok" },
    });
    await pullImage(mirror, "library/app", "1");
    const again = await mirror.operate("GET", "/status");
    const { cache: after } = again.body as { cache: typeof status.cache };
    const pulls = 2 + single.blobs.length;
    const servedBytes = sizeOf(single.manifest, ...single.blobs);
    assert.deepEqual(after, {
      requests: status.cache.requests + pulls,
      hits: status.cache.hits + pulls,
      hitRatio: (status.cache.hits + pulls) / (status.cache.requests + pulls),
      servedBytes: status.cache.servedBytes + servedBytes,
      receivedBytes: status.cache.receivedBytes,
      savedBytes: status.cache.savedBytes + servedBytes,
    });
    assert.equal(status.cache.receivedBytes, await mirror.metric(RECEIVED));
    assert.deepEqual(status.running, { fillCount: 0, fills: [], jobs: [] });
    assert.equal(storage["evictedImages"], 0);
    assert.equal(storage["oldestEvictedAgeSeconds"], null);
    assert.equal(storage["root"], mirror.root);
    assert.equal(storage["tags"], 2);
    assert.equal(storage["manifests"], 3);
    assert.equal(
      storage["bytes"],
      await mirror.metric("entrepot_storage_bytes"),
    );
  });

  void it("describes every route, no other, and the members of every response", async (test) => {
    const { mirror } = await setUp(test);
    await keepJob(mirror, JOB);
    const { body } = await mirror.operate("GET", "/openapi.json");
    const { paths } = body as Document;
    const schemas = new Ajv({ strict: false, validateFormats: false });
    schemas.addSchema(withoutOtherMembers(body), "api");
    assert.deepEqual(Object.keys(paths).toSorted(), [
      "/api/v1/events",
      "/api/v1/evict",
      "/api/v1/export",
      "/api/v1/gc",
      "/api/v1/images",
      "/api/v1/images/{ref}",
      "/api/v1/images/{ref}/pin",
      "/api/v1/images/{ref}/refresh",
      "/api/v1/import",
      "/api/v1/jobs",
      "/api/v1/jobs/{id}",
      "/api/v1/openapi.json",
      "/api/v1/scrub",
      "/api/v1/status",
      "/api/v1/tags",
      "/api/v1/tags/{ref}",
      "/api/v1/upstreams",
      "/api/v1/warm",
      "/api/v1/wishes",
    ]);
    const bundle = new Uint8Array(
      await tarOf(bundleMembers({ [`${APP}:2`]: single })),
    );
    for (const [path, methods] of Object.entries(paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        // Streams have tests of their own.
        if (!hasJson(operation)) continue;
        const isTags = path.startsWith("/api/v1/tags");
        const ref = isTags ? "local/app:1" : `${APP}:1`;
        // A dry run answers 200, a job 202.
        const order = path.endsWith("/warm")
          ? { refs: [`${APP}:1`], dryRun: true }
          : isTags && method === "post"
            ? { source: `${APP}:1`, target: ref }
            : undefined;
        const answer = await fetch(
          mirror.operatorOrigin +
            path.replace("{ref}", ref).replace("{id}", JOB),
          {
            ...(order === undefined ? {} : jsonBody(JSON.stringify(order))),
            ...(path.endsWith("/import") ? { body: bundle } : {}),
            method: method.toUpperCase(),
          },
        );
        const content: unknown = await answer.json();
        assert.equal(answer.status, 200, `${method} ${path}`);
        const at = ["paths", path, method, "responses", "200", "content"];
        const validate = schemas.compile({
          $ref: pointer(...at, "application/json", "schema"),
        });
        assert.equal(validate(content), true, JSON.stringify(validate.errors));
        if (method === "delete" && !isTags)
          await pullImage(mirror, "library/app", "1");
      }
    }
  });

  void it("sends errors as problem details (RFC 9457)", async (test) => {
    const { mirror } = await setUp(test);
    const ask = async (
      method: string,
      path: string,
      init: RequestInit = {},
    ): Promise<unknown> => {
      const answer = await fetch(`${mirror.operatorOrigin}${path}`, {
        method,
        ...init,
      });
      const problem = (await answer.json()) as Problem;
      const { type, status, detail, errors } = problem;
      assert.equal(
        answer.headers.get("content-type"),
        "application/problem+json; charset=utf-8",
      );
      assert.equal(status, answer.status);
      assert.equal(typeof problem.title, "string");
      const code = type.replace("urn:entrepot:problem:", "");
      assert.deepEqual(errors, [
        {
          code: code.toUpperCase().replaceAll("-", "_"),
          message: problem.title,
          detail,
        },
      ]);
      return [status, code, detail];
    };
    const hint = "; see /api/v1/openapi.json";
    const noJson = "got a request that this API does not read; expected JSON";
    for (const [method, path, init, want] of [
      [
        "GET",
        `/api/v1/images/${APP}:absent`,
        {},
        [404, "manifest-unknown", "not cached as an image by itself"],
      ],
      [
        "GET",
        "/api/v1/images?n=0",
        {},
        [400, "pagination-number-invalid", `n: must be >= 1${hint}`],
      ],
      [
        "GET",
        "/api/v1/images?q=a&q=b",
        {},
        [400, "name-invalid", `q: must be string${hint}`],
      ],
      [
        "POST",
        "/api/v1/scrub",
        jsonBody('{"repair":"yes"}'),
        [400, "unsupported", `repair: must be boolean${hint}`],
      ],
      [
        "POST",
        "/api/v1/evict",
        jsonBody('{"all":true}'),
        [400, "unsupported", `all: got an unknown member${hint}`],
      ],
      ["POST", "/api/v1/evict", jsonBody("{"), [400, "unsupported", noJson]],
      [
        "POST",
        "/api/v1/evict",
        jsonBody(`{"toBytes":1${" ".repeat(5_000)}}`),
        [413, "unsupported", noJson],
      ],
      [
        "POST",
        "/api/v1/evict",
        { body: "a=1", headers: { "content-type": "text/csv" } },
        [415, "unsupported", noJson],
      ],
      [
        "PUT",
        `/api/v1/images/${APP}:1`,
        {},
        [
          400,
          "name-invalid",
          "got PUT of a reference; expected PUT of …/pin or POST of …/refresh",
        ],
      ],
      [
        "GET",
        "/api/v1/absent",
        {},
        [404, "unsupported", `got GET of an unknown path${hint}`],
      ],
      [
        "GET",
        "/api/v1/status",
        { headers: { origin: "http://evil.example" } },
        [403, "denied", "scripts of other pages are not clients of this API"],
      ],
    ] as const) {
      assert.deepEqual(
        await ask(method, path, init),
        want,
        `${method} ${path}`,
      );
    }
  });

  void it("refuses web pages of another origin and foreign names of DNS", async (test) => {
    const { mirror } = await setUp(test);
    const port = Number(new URL(mirror.operatorOrigin).port);
    const table: readonly (readonly [Record<string, string>, number])[] = [
      [{ Host: `127.0.0.1:${port}` }, 200],
      [{ Host: `localhost:${port}` }, 200],
      [{ Host: `[::1]:${port}`, Origin: `http://[::1]:${port}` }, 200],
      [{ Host: `[::1]:${port}`, Origin: `http://127.0.0.1:${port}` }, 403],
      [{ Host: `127.0.0.1:${port}`, Via: "1.1 proxy" }, 403],
      [{ Host: "" }, 403],
      [{ Host: `evil.example:${port}` }, 403],
      [{ Host: `127.0.0.1:${port}`, Origin: "http://evil.example" }, 403],
      [{ Host: `127.0.0.1:${port}`, Origin: "null" }, 403],
    ];
    for (const [headers, status] of table) {
      const answer = await startRequest({
        port,
        path: "/api/v1/status",
        headers,
      }).response;
      assert.equal(answer.status, status, JSON.stringify(headers));
    }
  });
});
