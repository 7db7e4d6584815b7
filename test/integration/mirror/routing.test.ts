import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  errorDetail,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const HUB_IMAGE = buildImage({ seed: "hub" });
const QUAY_IMAGE = buildImage({ seed: "quay" });
const CORP_IMAGE = buildImage({ seed: "corp" });

interface SetUp {
  readonly hub: ScriptedUpstream;
  readonly quay: ScriptedUpstream;
  readonly corp: ScriptedUpstream;
  readonly mirror: TestMirror;
}

/** Three upstreams with one image each, all of the same name. */
async function setUp(test: AfterTest): Promise<SetUp> {
  const hub = await ScriptedUpstream.start(test);
  const quay = await ScriptedUpstream.start(test);
  const corp = await ScriptedUpstream.start(test);
  for (const [upstream, image] of [
    [hub, HUB_IMAGE],
    [quay, QUAY_IMAGE],
    [corp, CORP_IMAGE],
  ] as const) {
    for (const name of ["library/app", "team/app", "app"]) {
      upstream.content.addImage(name, image, "v");
    }
  }
  const mirror = await startMirror(test, [
    upstreamOf(hub, {
      name: "docker.io",
      aliases: ["index.docker.io", "registry-1.docker.io"],
      libraryPrefix: true,
    }),
    upstreamOf(quay, {
      name: "quay.io",
      isDefault: false,
      hostnames: ["quay.mirror.internal"],
    }),
    upstreamOf(corp, {
      name: "registry.corp:5000",
      isDefault: false,
      aliases: ["corp"],
    }),
  ]);
  return { hub, quay, corp, mirror };
}

interface Spelling {
  readonly path: string;
  readonly host?: string;
  readonly image: { readonly manifest: { readonly digest: string } };
  /** The repository in the upstream request. */
  readonly repository: string;
  readonly namespace?: string;
}

const SPELLINGS: readonly Spelling[] = [
  { path: "/v2/app", image: HUB_IMAGE, repository: "library/app" },
  { path: "/v2/library/app", image: HUB_IMAGE, repository: "library/app" },
  { path: "/v2/docker.io/app", image: HUB_IMAGE, repository: "library/app" },
  {
    path: "/v2/docker.io/library/app",
    image: HUB_IMAGE,
    repository: "library/app",
  },
  { path: "/v2/docker.io/team/app", image: HUB_IMAGE, repository: "team/app" },
  {
    path: "/v2/index.docker.io/app",
    image: HUB_IMAGE,
    repository: "library/app",
  },
  { path: "/docker.io/v2/app", image: HUB_IMAGE, repository: "library/app" },
  {
    path: "/registry-1.docker.io/v2/library/app",
    image: HUB_IMAGE,
    repository: "library/app",
  },
  {
    path: "/v2/library/app?ns=docker.io",
    image: HUB_IMAGE,
    repository: "library/app",
    namespace: "docker.io",
  },
  {
    path: "/v2/app?ns=registry-1.docker.io",
    image: HUB_IMAGE,
    repository: "library/app",
    namespace: "registry-1.docker.io",
  },
  { path: "/v2/quay.io/app", image: QUAY_IMAGE, repository: "app" },
  { path: "/v2/quay.io/team/app", image: QUAY_IMAGE, repository: "team/app" },
  { path: "/quay.io/v2/team/app", image: QUAY_IMAGE, repository: "team/app" },
  {
    path: "/v2/team/app?ns=quay.io",
    image: QUAY_IMAGE,
    repository: "team/app",
    namespace: "quay.io",
  },
  {
    path: "/v2/team/app?ns=QUAY.io",
    image: QUAY_IMAGE,
    repository: "team/app",
    namespace: "QUAY.io",
  },
  // k3s and BuildKit send both; the name's first component decides.
  {
    path: "/v2/quay.io/team/app?ns=quay.io",
    image: QUAY_IMAGE,
    repository: "team/app",
  },
  {
    path: "/v2/docker.io/library/app?ns=docker.io",
    image: HUB_IMAGE,
    repository: "library/app",
  },
  {
    path: "/v2/docker.io/library/app?ns=quay.io",
    image: HUB_IMAGE,
    repository: "library/app",
  },
  {
    path: "/quay.io/v2/team/app?ns=docker.io",
    image: QUAY_IMAGE,
    repository: "team/app",
  },
  {
    path: "/v2/team/app",
    host: "quay.mirror.internal",
    image: QUAY_IMAGE,
    repository: "team/app",
  },
  {
    path: "/v2/team/app",
    host: "QUAY.mirror.internal:5000",
    image: QUAY_IMAGE,
    repository: "team/app",
  },
  {
    path: "/v2/docker.io/team/app",
    host: "quay.mirror.internal",
    image: HUB_IMAGE,
    repository: "team/app",
  },
  {
    path: "/v2/team/app?ns=docker.io",
    host: "quay.mirror.internal",
    image: HUB_IMAGE,
    repository: "team/app",
    namespace: "docker.io",
  },
  {
    path: "/v2/team/app",
    host: "anything",
    image: HUB_IMAGE,
    repository: "team/app",
  },
  {
    path: "/v2/team/app?ns=registry.corp%3A5000",
    image: CORP_IMAGE,
    repository: "team/app",
    namespace: "registry.corp:5000",
  },
  { path: "/v2/corp/team/app", image: CORP_IMAGE, repository: "team/app" },
];

function manifestPath(path: string): string {
  const [name = "", query = ""] = path.split("?");
  return `${name}/manifests/v${query === "" ? "" : `?${query}`}`;
}

void describe("the route of a request", () => {
  for (const { path, host, image, repository, namespace } of SPELLINGS) {
    void it(`${path}${host === undefined ? "" : ` on ${host}`} is ${repository} of one upstream`, async (test) => {
      const { hub, quay, corp, mirror } = await setUp(test);
      const headers = host === undefined ? {} : { Host: host };
      const got = await mirror.get(manifestPath(path), headers);
      assert.deepEqual([got.status, got.sha256], [200, image.manifest.digest]);
      assert.equal(got.headers["oci-namespace"], namespace);
      const requests = [hub, quay, corp].flatMap((one) => one.requests());
      assert.equal(requests.length, 1);
      for (const request of requests) {
        assert.equal(request.repository, repository);
        assert.equal(request.query.get("ns"), null);
      }
      const head = await mirror.head(manifestPath(path), headers);
      assert.equal(head.headers["oci-namespace"], namespace);
    });
  }

  void it("names the registry of ns in the response to a deletion", async (test) => {
    const { mirror } = await setUp(test);
    const path = manifestPath("/v2/team/app?ns=registry.corp%3A5000");
    await mirror.get(path);
    const deleted = await mirror.start(path, { method: "DELETE" }).response;
    assert.equal(deleted.status, 202);
    assert.equal(deleted.headers["oci-namespace"], "registry.corp:5000");
  });

  void it("maps every spelling of a repository to one cache entry", async (test) => {
    const { hub, quay, corp, mirror } = await setUp(test);
    for (const { path, host } of SPELLINGS) {
      await mirror.get(
        manifestPath(path),
        host === undefined ? {} : { Host: host },
      );
    }
    // library/app and team/app; app and team/app; team/app: one GET each.
    assert.deepEqual(
      [hub, quay, corp].map((one) => [
        one.count({ method: "HEAD" }),
        one.count({ method: "GET" }),
      ]),
      [
        [0, 2],
        [0, 2],
        [0, 1],
      ],
    );
    const catalog = await mirror.get("/v2/_catalog");
    assert.deepEqual(JSON.parse(catalog.body.toString()), {
      repositories: [
        "corp/team/app",
        "docker.io/library/app",
        "docker.io/team/app",
        "quay.io/app",
        "quay.io/team/app",
      ],
    });
  });

  void it("ends in 404 for an ns that is not an upstream, without a connection", async (test) => {
    const { hub, quay, corp, mirror } = await setUp(test);
    for (const query of [
      "ns=evil.internal",
      "ns=127.0.0.1",
      `ns=127.0.0.1:${hub.registry.port}`,
      "ns=localhost",
      "ns=169.254.169.254",
      "ns=[::1]:80",
      "ns=",
      "ns",
      "ns=docker.io&ns=docker.io",
      "ns=docker.io&ns=quay.io",
      "ns[]=docker.io",
      "ns=docker.io%0d%0aX: y",
      "ns=http://docker.io",
      "ns=docker.io/",
      "ns=__proto__",
      "ns=constructor",
      "n%73=evil.internal",
    ]) {
      for (const path of [
        "/v2/team/app/manifests/v",
        `/v2/team/app/blobs/${HUB_IMAGE.config.digest}`,
        "/v2/team/app/tags/list",
        "/v2/",
        "/v2/_catalog",
      ]) {
        const got = await mirror.raw(
          `GET ${path}?${query.replaceAll(" ", "%20")} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n`,
        );
        assert.deepEqual(
          [got.status, errorCode(got)],
          [404, "NAME_UNKNOWN"],
          `${path}?${query}`,
        );
        assert.equal(got.headers["oci-namespace"], undefined);
        assert.doesNotMatch(got.body.toString(), /evil/);
      }
    }
    for (const upstream of [hub, quay, corp]) assert.equal(upstream.count(), 0);
  });

  void it("ends in 404 for a prefix that is not an upstream, or for two prefixes", async (test) => {
    const { hub, quay, mirror } = await setUp(test);
    for (const prefix of [
      "/evil",
      "/evil.internal",
      "/quay.io/docker.io",
      "/__proto__",
    ]) {
      for (const path of ["/v2/", "/v2/team/app/manifests/v"]) {
        const got = await mirror.get(prefix + path);
        assert.deepEqual([got.status, errorCode(got)], [404, "NAME_UNKNOWN"]);
      }
    }
    assert.equal(hub.count() + quay.count(), 0);
  });

  void it("ends in 404 for a first component that is a registry but not an upstream, without a connection", async (test) => {
    const { hub, quay, corp, mirror } = await setUp(test);
    for (const name of [
      "other.corp/team/app",
      "other.corp:5000/team/app",
      "localhost/app",
      "localhost:5000/app",
      "127.0.0.1:5000/app",
    ]) {
      const registry = name.slice(0, name.indexOf("/"));
      for (const path of [
        "manifests/v",
        `blobs/${HUB_IMAGE.config.digest}`,
        "tags/list",
        `referrers/${HUB_IMAGE.manifest.digest}`,
      ]) {
        const got = await mirror.get(`/v2/${name}/${path}`);
        assert.deepEqual(
          [got.status, errorCode(got), errorDetail(got)],
          [
            404,
            "NAME_UNKNOWN",
            `${registry} is not among the upstreams or hosted registries`,
          ],
          `${name}/${path}`,
        );
      }
      const head = await mirror.head(`/v2/${name}/manifests/v`);
      assert.equal(head.status, 404);
    }
    for (const upstream of [hub, quay, corp]) assert.equal(upstream.count(), 0);
    const count = "entrepot_unknown_registries_total";
    assert.equal(await mirror.metric(`${count}{by="component"}`), 25);
  });

  void it("counts requests for unknown registries, and logs each name once and at most a hundred names", async (test) => {
    const { mirror } = await setUp(test);
    for (let i = 0; i < 120; i++) {
      await mirror.get(`/v2/team/app/tags/list?ns=r${i}.example`);
      await mirror.get(`/v2/?ns=r${i}.example`);
    }
    await mirror.get("/evil%0d/v2/");
    await mirror.get("/prefix.example/v2/");
    const count = "entrepot_unknown_registries_total";
    assert.equal(await mirror.metric(`${count}{by="namespace"}`), 240);
    assert.equal(await mirror.metric(`${count}{by="prefix"}`), 1);
    const lines = mirror.log.filter(({ msg }) => /not among/.test(String(msg)));
    assert.equal(lines.length, 100);
    assert.equal(lines[0]?.["registry"], "r0.example");
    assert.equal(lines[0]?.["by"], "namespace");
  });

  void it("treats names of built-in object properties as plain names", async (test) => {
    const { hub, mirror } = await setUp(test);
    for (const name of [
      "constructor",
      "__proto__",
      "toString",
      "team/constructor",
      "hasownproperty",
    ]) {
      for (const path of [
        `/v2/${name}/manifests/v`,
        `/v2/a/manifests/${name.replace("/", "-")}`,
        `/v2/${name}/tags/list`,
      ]) {
        const got = await mirror.get(path, { __proto__x: "1" });
        assert.ok([400, 404].includes(got.status), `${path}: ${got.status}`);
        assert.ok(errorCode(got));
      }
    }
    assert.ok(hub.count() > 0);
    const alive = await mirror.raw(
      "GET /v2/ HTTP/1.1\r\nHost: m\r\n__proto__: x\r\nconstructor: y\r\nConnection: close\r\n\r\n",
    );
    assert.equal(alive.status, 200);
  });

  void it("ends in 404 if the request names no upstream and there is no default", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const mirror = await startMirror(test, [
      upstreamOf(upstream, { isDefault: false }),
    ]);
    const got = await mirror.get("/v2/team/app/manifests/v");
    assert.deepEqual([got.status, errorCode(got)], [404, "NAME_UNKNOWN"]);
    assert.equal(upstream.count(), 0);
  });

  void it("is refused with 508 if the mirror itself sent it", async (test) => {
    const { hub, mirror } = await setUp(test);
    await mirror.get("/v2/team/app/manifests/v");
    const via = hub.requests()[0]?.headers["via"] ?? "";
    assert.match(via, /^1\.1 entrepot-[0-9a-f]+$/);
    hub.forgetRequests();
    for (const header of [via, `1.0 fred, ${via}`, `${via}, 1.1 x`]) {
      for (const path of ["/v2/", "/v2/team/app/manifests/v", "/v2/_catalog"]) {
        const got = await mirror.get(path, { Via: header });
        assert.deepEqual([got.status, errorCode(got)], [508, "UNAVAILABLE"]);
      }
    }
    const other = await mirror.get("/v2/team/app/manifests/v", {
      Via: "1.1 entrepot-00000000",
    });
    assert.match(cacheStatusOf(other) ?? "", /^hit/);
    assert.equal(hub.count(), 0);
  });

  void it("that leads back to the mirror ends in an error, not in a request loop", async (test) => {
    const first = await startMirror(test, []);
    const { port } = first;
    await first.restart({
      upstreams: [upstreamOf({ origin: `http://127.0.0.1:${port}` })],
      listen: [{ host: "127.0.0.1", port }],
    });
    const got = await first.get("/v2/team/app/manifests/v");
    assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
    const statuses = first.log
      .filter(({ msg }) => msg === "request")
      .map(({ statusCode }) => statusCode);
    assert.ok(statuses.filter((status) => status === 508).length <= 2);
  });
});

void describe("the ping", () => {
  void it("is 200 for every spelling, by GET and HEAD", async (test) => {
    const { hub, quay, mirror } = await setUp(test);
    for (const path of [
      "/v2/",
      "/v2",
      "/docker.io/v2/",
      "/quay.io/v2",
      "/corp/v2/",
      "/v2/?ns=quay.io",
    ]) {
      for (const method of ["GET", "HEAD"]) {
        const got = await mirror.start(path, { method }).response;
        assert.equal(got.status, 200, path);
        assert.equal(
          got.headers["docker-distribution-api-version"],
          "registry/2.0",
        );
        assert.equal(got.headers["content-length"], "2");
        assert.equal(got.headers["www-authenticate"], undefined);
      }
    }
    assert.equal(hub.count() + quay.count(), 0);
  });
});
