import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { buildArtifact, buildImage } from "../../support/image-builder.ts";
import { cacheStatusOf, errorCode } from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import {
  type RegistryScene,
  type RegistrySceneOptions,
  startRegistryScene,
} from "../../support/registry-scene.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "registries", layers: [5_000, 200] });
const SIGNATURE = buildArtifact({
  seed: "registries/signature",
  artifactType: "application/vnd.example.signature",
  subject: IMAGE.manifest,
});
const TTL_MS = 600_000;
const PASSWORD = "canary-password";

interface Registry extends RegistrySceneOptions {
  /** The repository in requests of clients. */
  readonly repository: string;
  /** The repository at the registry, if it differs. */
  readonly known?: string;
  /** The host of its content, if it is another one. */
  readonly holder?: "elsewhere";
  /** Changes the standard answers to those of this registry. */
  readonly behave?: (scene: RegistryScene) => void;
  /** Checks in addition to the pull that every registry is tested with. */
  readonly check?: (scene: RegistryScene, path: string) => Promise<void>;
  /** The expected log lines: its peculiarities are not faults. */
  readonly faults?: number;
  /** The registry lists its tags in pages of two. */
  readonly isPaged?: boolean;
}

/** Omits headers that other registries send. */
function without(...names: readonly string[]): Misbehaviour {
  return {
    headers: Object.fromEntries(names.map((name) => [name, undefined])),
  };
}

async function tagsOf(
  { mirror }: RegistryScene,
  path: string,
): Promise<readonly string[]> {
  const { body, status } = await mirror.get(`${path}/tags/list`);
  assert.equal(status, 200);
  return (JSON.parse(body.toString()) as { tags: readonly string[] }).tags;
}

const REGISTRIES: readonly Registry[] = [
  {
    name: "docker.io",
    hosts: {
      registry: "registry-1.docker.io",
      token: "auth.docker.io",
      cdn: "production.cloudflare.docker.com",
    },
    script: {
      auth: {
        scheme: "bearer",
        realm: "port",
        service: "registry.docker.io",
        tokenField: "both",
      },
      redirectBlobs: { status: 307 },
    },
    config: { libraryPrefix: true },
    repository: "alpine",
    known: "library/alpine",
    behave: ({ upstream }) =>
      upstream.when(
        { kind: "manifest" },
        {
          headers: {
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": "76;w=21600",
            "docker-ratelimit-source": "192.0.2.1",
          },
        },
      ),
    check: async ({ upstream, mirror }) => {
      const [token] = upstream.requests({ kind: "token" });
      assert.equal(token?.listener, "token");
      assert.equal(token.query.get("service"), "registry.docker.io");
      assert.equal(token.query.get("scope"), "repository:library/alpine:pull");
      assert.equal(
        await mirror.metric(
          'entrepot_upstream_ratelimit_remaining{upstream="docker.io",credential="anonymous"}',
        ),
        76,
      );
    },
  },
  {
    name: "quay.io",
    hosts: { cdn: "cdn03.quay.io" },
    script: {
      auth: { scheme: "bearer", tokenPath: "/v2/auth", service: "quay.io" },
      redirectBlobs: { status: 302 },
      pageSize: 2,
      absoluteLinks: true,
    },
    isPaged: true,
    repository: "prometheus/prometheus",
  },
  {
    name: "ghcr.io",
    hosts: { cdn: "pkg-containers.githubusercontent.com" },
    script: {
      auth: { scheme: "bearer", service: "ghcr.io" },
      redirectBlobs: { status: 307 },
      referrersApi: false,
    },
    repository: "org/app",
    faults: 1,
    behave: ({ upstream }) => {
      // Throttling, not a quota: the request waits and is sent again.
      upstream.when(
        { kind: "manifest" },
        {
          status: 429,
          body: '{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 1.16ms, allowed: 44000/minute"}]}',
        },
        // The answer to a HEAD has no body for the pause.
        { times: 2 },
      );
    },
    check: async ({ upstream, mirror }) => {
      upstream.deny("org/private");
      const got = await mirror.get("/v2/org/private/manifests/1");
      assert.deepEqual(
        [got.status, errorCode(got), got.headers["www-authenticate"]],
        [404, "NAME_UNKNOWN", undefined],
      );
    },
  },
  {
    name: "gcr.io",
    hosts: { cdn: "storage.googleapis.com" },
    script: {
      auth: { scheme: "bearer", tokenPath: "/v2/token", service: "gcr.io" },
      redirectBlobs: { status: 302 },
    },
    repository: "distroless/static",
    behave: ({ upstream }) => {
      // Only the root of the API sends the challenge.
      upstream.when(
        {
          where: ({ kind, headers }) =>
            kind !== "ping" &&
            kind !== "token" &&
            kind !== "cdn" &&
            headers["authorization"] === undefined,
        },
        { status: 401, headers: { "www-authenticate": undefined } },
        { beforeAuth: true },
      );
      upstream.when(
        { kind: "tags" },
        {
          body: JSON.stringify({
            child: ["x"],
            manifest: { "sha256:0": { tag: ["1"] } },
            name: "distroless/static",
            tags: ["1", "2", "3"],
          }),
        },
      );
    },
  },
  {
    name: "registry.k8s.io",
    hosts: {},
    elsewhere: "us-west1-docker.pkg.dev",
    repository: "pause",
    holder: "elsewhere",
    behave: ({ upstream, elsewhere }) => {
      for (const image of [IMAGE, SIGNATURE]) {
        elsewhere.content.addImage("k8s-artifacts-prod/images/pause", image);
      }
      for (const tag of ["1", "2", "3"]) {
        elsewhere.content.addManifest(
          "k8s-artifacts-prod/images/pause",
          IMAGE.manifest,
          tag,
        );
      }
      // To another host and another repository; the body is HTML.
      upstream.when({ repository: "pause" }, ({ path, target }) => ({
        status: 307,
        headers: {
          location: target.replace(
            "/v2/",
            "https://us-west1-docker.pkg.dev/v2/k8s-artifacts-prod/images/",
          ),
          "content-type": "text/html; charset=utf-8",
        },
        body: `<a href="${path}">Temporary Redirect</a>.`,
      }));
    },
    check: async ({ mirror }) => {
      // Stored under the requested name only.
      const got = await mirror.get("/v2/_catalog");
      assert.deepEqual(JSON.parse(got.body.toString()), {
        repositories: ["registry.k8s.io/pause"],
      });
    },
  },
  {
    name: "public.ecr.aws",
    hosts: { cdn: "d5l0dvt14r5h8.cloudfront.net" },
    script: {
      auth: {
        scheme: "bearer",
        tokenPath: "/token/",
        service: "public.ecr.aws",
        challengeScope: "aws",
      },
      redirectBlobs: { status: 307 },
    },
    repository: "nginx/nginx",
    behave: ({ upstream }) => {
      upstream.when(
        { kind: "blob", method: "HEAD" },
        { status: 401, headers: { "www-authenticate": 'Bearer realm="x"' } },
      );
    },
    check: async ({ upstream, mirror }) => {
      const [token] = upstream.requests({ kind: "token" });
      assert.equal(token?.query.get("scope"), "aws");
      const blob = IMAGE.blobs[1] ?? assert.fail();
      upstream.content.addBlob("nginx/other", blob);
      // Not linked there yet: one HEAD checks it, or the request that replaces HEAD.
      const head = await mirror.head(`/v2/nginx/other/blobs/${blob.digest}`);
      assert.deepEqual(
        [head.status, head.headers["content-length"]],
        [200, String(blob.sizeBytes)],
      );
    },
  },
  {
    name: "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    hosts: { cdn: "prod-eu-west-1-starport-layer-bucket.s3.amazonaws.com" },
    script: {
      auth: { scheme: "basic", users: { AWS: PASSWORD } },
      // The scripted storage refuses a request that has Authorization, as S3 does.
      redirectBlobs: { status: 307 },
      pageSize: 2,
      absoluteLinks: true,
    },
    config: {
      credentials: [{ username: "AWS", password: new Secret(PASSWORD) }],
    },
    isPaged: true,
    repository: "team/app",
    behave: ({ upstream }) => {
      upstream.when(
        { kind: "manifest", method: "GET" },
        without("docker-content-digest"),
      );
      upstream.when(
        { kind: "tags" },
        { headers: { "content-type": "text/plain; charset=utf-8" } },
      );
    },
  },
  {
    name: "mcr.microsoft.com",
    hosts: { cdn: "westeurope.data.mcr.microsoft.com" },
    script: { redirectBlobs: { status: 307 } },
    repository: "windows/nanoserver",
  },
  {
    name: "registry.access.redhat.com",
    hosts: {},
    repository: "ubi9/ubi",
    behave: ({ upstream }) => {
      upstream.when(
        {
          where: ({ headers }) => /gzip/.test(headers["accept-encoding"] ?? ""),
        },
        { gzip: true },
      );
      upstream.when(
        { kind: "manifest", reference: "nothing" },
        {
          status: 404,
          body: "Not Found",
          headers: { "content-type": "text/plain" },
        },
      );
      upstream.when(
        { kind: "manifest" },
        {
          headers: {
            "docker-content-digest": undefined,
            etag: '"5f2b7a-1c3"',
            "content-type": "text/plain",
          },
        },
      );
    },
    check: async ({ mirror }, path) => {
      const got = await mirror.get(`${path}/manifests/1`);
      assert.equal(got.headers["content-type"], IMAGE.manifest.mediaType);
      assert.equal(got.headers["etag"], `"${IMAGE.manifest.digest}"`);
      const missing = await mirror.get(`${path}/manifests/nothing`);
      assert.deepEqual(
        [missing.status, errorCode(missing)],
        [404, "MANIFEST_UNKNOWN"],
      );
    },
  },
  {
    name: "registry.redhat.io",
    hosts: { token: "sso.redhat.com" },
    script: {
      auth: {
        scheme: "bearer",
        realm: "port",
        tokenPath: "/auth/realms/rhcc/protocol/redhat-docker-v2/auth",
        service: "docker-registry",
        users: { "1|acme": PASSWORD },
        anonymous: false,
        tokenField: "access_token",
      },
    },
    config: {
      credentials: [{ username: "1|acme", password: new Secret(PASSWORD) }],
      // On another domain than the registry: the operator lists it.
      tokenRealms: ["sso.redhat.com"],
    },
    repository: "rhel9/postgresql-15",
  },
  {
    name: "registry.gitlab.com",
    hosts: {
      token: "gitlab.com",
      cdn: "cdn.registry.gitlab-static.net",
    },
    script: {
      auth: {
        scheme: "bearer",
        realm: "port",
        tokenPath: "/jwt/auth",
        service: "container_registry",
        expiresInSeconds: 300,
      },
      redirectBlobs: { status: 307 },
      referrersApi: false,
    },
    repository: "group/project/app",
  },
  {
    name: "harbor.corp",
    hosts: {},
    script: {
      auth: {
        scheme: "bearer",
        tokenPath: "/service/token",
        service: "harbor-registry",
        users: { robot$mirror: PASSWORD },
        anonymous: false,
      },
    },
    config: {
      credentials: [
        { username: "robot$mirror", password: new Secret(PASSWORD) },
      ],
    },
    repository: "proxy/library/app",
    behave: ({ upstream }) => {
      upstream.when(
        { kind: "manifest", method: "HEAD" },
        { contentLength: 12_345 },
      );
      // A proxy project has a blob only after the first pull.
      upstream.when({ kind: "blob", method: "HEAD" }, { status: 404 });
    },
    check: async ({ upstream, mirror }, path) => {
      const [token] = upstream.requests({ kind: "token" });
      assert.equal(token?.query.get("account"), "robot$mirror");
      const head = await mirror.head(`${path}/manifests/1`);
      assert.equal(
        head.headers["content-length"],
        String(IMAGE.manifest.sizeBytes),
      );
    },
  },
  {
    name: "artifactory.corp",
    hosts: {},
    script: {
      names: {},
      auth: {
        scheme: "bearer",
        tokenPath: "/artifactory/api/docker/hub/v2/token",
        service: "artifactory.corp",
      },
    },
    repository: "hub/app",
    behave: ({ upstream }) => {
      upstream.when(
        {
          where: ({ kind, headers }) =>
            kind !== "token" && headers["authorization"] === undefined,
        },
        {
          status: 401,
          headers: {
            "www-authenticate":
              'Bearer realm="https://artifactory.corp:443/artifactory/api/docker/hub/v2/token",service="artifactory.corp"',
          },
        },
        { beforeAuth: true },
      );
      upstream.when({ kind: "manifest" }, { framing: "chunked" });
      upstream.when(
        { kind: "tags" },
        {
          body: JSON.stringify({
            name: "hub/app",
            tags: ["1", IMAGE.manifest.digest, "2", "3"],
          }),
        },
      );
    },
  },
  {
    name: "nexus.corp:8443",
    hosts: {},
    script: {
      auth: { scheme: "basic", users: { acme: PASSWORD } },
      referrersApi: false,
    },
    config: {
      aliases: ["nexus"],
      credentials: [{ username: "acme", password: new Secret(PASSWORD) }],
    },
    repository: "nexus/team/app",
    known: "team/app",
    behave: ({ upstream }) => {
      upstream.when({ kind: "manifest" }, { framing: "chunked" });
      upstream.when(
        { kind: "tags", repository: "team/none" },
        { status: 200, body: '{"name":"team/none","tags":null}' },
      );
    },
    check: async (scene) => {
      assert.deepEqual(await tagsOf(scene, "/v2/nexus/team/none"), []);
    },
  },
  {
    name: "registry.istio.io",
    hosts: { cdn: "storage.example" },
    script: { redirectBlobs: { status: 302 } },
    repository: "release/pilot",
    behave: ({ upstream }) => {
      upstream.when({ method: "HEAD" }, without("content-length"));
    },
    check: async ({ upstream, mirror }) => {
      const blob = IMAGE.blobs[1] ?? assert.fail();
      upstream.content.addBlob("release/other", blob);
      const head = await mirror.head(`/v2/release/other/blobs/${blob.digest}`);
      assert.equal(head.headers["content-length"], String(blob.sizeBytes));
    },
  },
];

for (const registry of REGISTRIES) {
  void describe(registry.name, () => {
    void it("serves pulls, revalidation, tag lists and referrers through the cache", async (t) => {
      const scene = await startRegistryScene(t, registry);
      const { upstream, elsewhere, mirror } = scene;
      const { repository, known = repository } = registry;
      if (registry.holder === undefined) {
        upstream.content.addImage(known, IMAGE, "1");
        upstream.content.addImage(known, IMAGE, "2");
        upstream.content.addImage(known, IMAGE, "3");
        upstream.content.addImage(known, SIGNATURE);
      }
      registry.behave?.(scene);
      const path = `/v2/${repository}`;

      await pullImage(mirror, repository, "1");
      const counted = (): number => upstream.count() + elsewhere.count();
      const first = counted();
      const head = await mirror.head(`${path}/manifests/1`);
      assert.deepEqual(
        [
          head.headers["docker-content-digest"],
          head.headers["content-length"],
          head.headers["content-type"],
        ],
        [
          IMAGE.manifest.digest,
          String(IMAGE.manifest.sizeBytes),
          IMAGE.manifest.mediaType,
        ],
      );
      await pullImage(mirror, repository, "1");
      assert.equal(counted(), first, "a hit costs nothing upstream");

      mirror.clock.advance(TTL_MS);
      const confirmed = await mirror.get(`${path}/manifests/1`);
      assert.match(cacheStatusOf(confirmed) ?? "", /detail=revalidated$/);
      assert.equal(confirmed.sha256, IMAGE.manifest.digest);

      assert.deepEqual(await tagsOf(scene, path), ["1", "2", "3"]);
      if (registry.isPaged === true) {
        assert.equal(upstream.count({ kind: "tags", status: 200 }), 2);
      }
      const found = await mirror.get(
        `${path}/referrers/${IMAGE.manifest.digest}`,
      );
      assert.equal(found.status, 200);
      const { manifests } = JSON.parse(found.body.toString()) as {
        manifests: readonly { digest: string }[];
      };
      assert.deepEqual(
        manifests.map(({ digest }) => digest),
        [SIGNATURE.manifest.digest],
      );
      await registry.check?.(scene, path);

      // The password is sent to the realm or, with Basic, to the registry; never to the storage.
      for (const { headers, listener } of upstream.requests()) {
        if (listener !== "cdn") continue;
        assert.equal(headers["authorization"], undefined);
      }
      for (const { headers } of elsewhere.requests()) {
        assert.equal(headers["authorization"], undefined);
      }
      const faults = mirror.log.filter(
        ({ msg }) => msg === "the upstream answered with a fault",
      );
      assert.equal(faults.length, registry.faults ?? 0);
    });
  });
}
