import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import {
  OCI_INDEX,
  OCI_MANIFEST,
  SCHEMA1_SIGNED,
} from "../../../src/oci/media-type.ts";
import { HostedClient } from "../../support/hosted-client.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
  bytesBlob,
  descriptorJson,
  manifestOf,
} from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "hosted", layers: [1_000, 200_000] });
const OTHER = buildImage({ seed: "hosted other" });
const DOCKER = buildImage({ seed: "hosted docker", format: "docker" });
const LONG = buildImage({ seed: "hosted sha512", algorithm: "sha512" });
const INDEX = buildMultiArch({ seed: "hosted index" });
const NOTHING = bytesBlob("");

/** Two hosted registries, two repositories of the first, and one client for each. */
async function setUp(test: TestContext, options: TestMirrorOptions = {}) {
  const mirror = await startMirror(test, [], {
    config: {
      hosted: [hostedConfig(), hostedConfig({ name: "second" })],
      ...options.config,
    },
  });
  const client = (repository: string): HostedClient =>
    new HostedClient(mirror.port, repository);
  return {
    mirror,
    client,
    app: client("local/team/app"),
    web: client("local/team/web"),
    twin: client("second/team/app"),
  };
}

void describe("a hosted manifest", () => {
  for (const [name, image] of [
    ["an OCI image", IMAGE],
    ["a Docker image", DOCKER],
    ["an image with sha512 digests", LONG],
  ] as const) {
    void it(`of ${name} is served as it was pushed, by tag and by digest`, async (test) => {
      const { app } = await setUp(test);
      const { manifest } = image;
      await app.push(image);
      const pushed = await app.putManifest(manifest, "v1");
      assert.equal(pushed.status, 201);
      const byTag = pushed.headers.get("docker-content-digest") ?? "";
      assert.match(byTag, /^sha256:/);
      for (const [reference, digest] of [
        ["v1", byTag],
        [manifest.digest, manifest.digest],
      ] as const) {
        for (const method of ["GET", "HEAD", "GET", "HEAD"] as const) {
          const got = await app.ask(method, `manifests/${reference}`);
          assert.equal(got.status, 200);
          assert.equal(got.headers.get("content-type"), manifest.mediaType);
          assert.equal(got.headers.get("docker-content-digest"), digest);
          assert.equal(got.headers.get("etag"), `"${digest}"`);
          assert.equal(
            got.headers.get("content-length"),
            `${manifest.sizeBytes}`,
          );
          assert.equal(got.headers.get("cache-status"), null);
          assert.equal(got.headers.get("age"), null);
          if (method === "GET") assert.deepEqual(got.body, manifest.bytes);
        }
        const unchanged = await app.get(`manifests/${reference}`, {
          "if-none-match": `"${digest}"`,
        });
        assert.deepEqual([unchanged.status, unchanged.body.length], [304, 0]);
      }
      for (const blob of image.blobs) {
        const got = await app.get(`blobs/${blob.digest}`);
        assert.equal(got.status, 200);
        assert.equal(got.headers.get("docker-content-digest"), blob.digest);
        assert.deepEqual(got.body, blob.bytes());
      }
    });
  }

  void it("of an index needs its children, and is served whole", async (test) => {
    const { app } = await setUp(test);
    const [first, second] = INDEX.images;
    assert.ok(first && second);
    await app.push(first);
    const early = await app.putManifest(INDEX.manifest, "multi");
    assert.deepEqual(
      [early.status, early.code, early.detail],
      [400, "MANIFEST_BLOB_UNKNOWN", second.manifest.digest],
    );
    assert.equal(await app.resolve("multi"), undefined);
    await app.push(second);
    const pushed = await app.putManifest(INDEX.manifest, "multi");
    assert.equal(pushed.status, 201);
    const got = await app.get("manifests/multi");
    assert.equal(got.headers.get("content-type"), OCI_INDEX);
    assert.deepEqual(got.body, INDEX.manifest.bytes);
  });

  void it("is answered with its location in the spelling of the request", async (test) => {
    const { mirror, client } = await setUp(test);
    await client("local/team/app").push(IMAGE, "v1");
    const { digest } = IMAGE.manifest;
    const path = "v2/team/app/manifests";
    for (const [spelling, location] of [
      [
        "v2/local/team/app/manifests/v1",
        `/v2/local/team/app/manifests/${digest}`,
      ],
      [`local/${path}/v1`, `/local/${path}/${digest}`],
      [`${path}/v1?ns=local`, `/${path}/${digest}?ns=local`],
    ] as const) {
      const pushed = await fetch(
        `http://127.0.0.1:${mirror.port}/${spelling}`,
        {
          method: "PUT",
          headers: { "content-type": OCI_MANIFEST },
          body: IMAGE.manifest.bytes,
        },
      );
      assert.equal(pushed.status, 201);
      assert.equal(pushed.headers.get("location"), location);
      const { port } = mirror;
      const pulled = await fetch(`http://127.0.0.1:${port}${location}`);
      assert.equal(pulled.status, 200);
      await pulled.arrayBuffer();
    }
  });

  void it("that names missing content is refused, and leaves nothing behind", async (test) => {
    const { mirror, app, web, twin } = await setUp(test);
    await web.push(IMAGE, "v1");
    for (const client of [app, twin]) {
      const pushed = await client.putManifest(IMAGE.manifest, "v1");
      assert.deepEqual(
        [pushed.status, pushed.code, pushed.detail],
        [400, "MANIFEST_BLOB_UNKNOWN", IMAGE.config.digest],
      );
      assert.equal(await client.resolve("v1"), undefined);
      assert.equal(await client.resolve(IMAGE.manifest.digest), undefined);
    }
    const alone = await app.putManifest(OTHER.manifest, "v1");
    assert.equal(alone.status, 400);
    assert.equal(
      await mirror.metric('entrepot_storage_objects{kind="manifest"}'),
      1,
    );
    // The refused bytes of a manifest that another repository has are still there.
    await mirror.restart();
    const again = new HostedClient(mirror.port, "local/team/web");
    assert.equal((await again.get("manifests/v1")).status, 200);
  });

  const faults: readonly (readonly [
    string,
    number,
    string,
    Buffer,
    string,
    string,
  ])[] = [
    [
      "is not JSON",
      400,
      "MANIFEST_INVALID",
      Buffer.from("{"),
      OCI_MANIFEST,
      "v",
    ],
    [
      "has another type than the request",
      400,
      "MANIFEST_INVALID",
      DOCKER.manifest.bytes,
      OCI_MANIFEST,
      "v",
    ],
    [
      "is of schema 1",
      400,
      "MANIFEST_INVALID",
      Buffer.from('{"schemaVersion":1,"fsLayers":[]}'),
      SCHEMA1_SIGNED,
      "v",
    ],
    [
      "has another digest than its path",
      400,
      "DIGEST_INVALID",
      IMAGE.manifest.bytes,
      OCI_MANIFEST,
      OTHER.manifest.digest,
    ],
    [
      "has a malformed tag",
      400,
      "TAG_INVALID",
      IMAGE.manifest.bytes,
      OCI_MANIFEST,
      "-v",
    ],
    [
      "has a malformed digest",
      400,
      "DIGEST_INVALID",
      IMAGE.manifest.bytes,
      OCI_MANIFEST,
      "sha256:00",
    ],
    [
      "has a malformed further tag",
      400,
      "TAG_INVALID",
      IMAGE.manifest.bytes,
      OCI_MANIFEST,
      `${IMAGE.manifest.digest}?tag=v&tag=-`,
    ],
    [
      "is larger than the bound",
      413,
      "SIZE_INVALID",
      Buffer.alloc(4 * 1024 * 1024 + 1, 32),
      OCI_MANIFEST,
      "v",
    ],
  ];
  for (const [what, status, code, body, type, reference] of faults) {
    void it(`that ${what} is ${status} ${code}`, async (test) => {
      const { app } = await setUp(test);
      for (const blob of IMAGE.blobs) await app.putBlob(blob);
      const pushed = await app.ask("PUT", `manifests/${reference}`, {
        headers: { "content-type": type },
        body,
      });
      assert.deepEqual([pushed.status, pushed.code], [status, code]);
      assert.equal((await app.get("tags/list")).status, 404);
    });
  }

  void it("may have a missing subject and missing non-distributable layers", async (test) => {
    const { app } = await setUp(test);
    await app.putBlob(IMAGE.config);
    const mediaType =
      "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    const manifest = manifestOf(
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: descriptorJson(IMAGE.config),
        layers: [{ ...descriptorJson(OTHER.blobs[1] ?? NOTHING), mediaType }],
        subject: descriptorJson(OTHER.manifest),
      },
      OCI_MANIFEST,
    );
    const pushed = await app.putManifest(manifest);
    assert.equal(pushed.status, 201);
    assert.equal(pushed.headers.get("oci-subject"), OTHER.manifest.digest);
  });

  void it("is given all tags of a push by digest, or none of them", async (test) => {
    const { app } = await setUp(test, {
      config: { hosted: [hostedConfig({ immutableTags: ["**:fixed"] })] },
    });
    await app.push(OTHER, "fixed");
    for (const blob of IMAGE.blobs) await app.putBlob(blob);
    const { digest } = IMAGE.manifest;
    const refused = await app.putManifest(
      IMAGE.manifest,
      `${digest}?tag=a&tag=fixed&tag=b`,
    );
    assert.deepEqual([refused.status, refused.code], [409, "DENIED"]);
    assert.deepEqual(await app.tags(), ["fixed"]);
    assert.equal(await app.resolve(digest), undefined);
    const pushed = await app.putManifest(
      IMAGE.manifest,
      `${digest}?tag=b&tag=a&tag=b`,
    );
    assert.equal(pushed.status, 201);
    assert.equal(pushed.headers.get("oci-tag"), "b, a");
    assert.deepEqual(await app.tags(), ["a", "b", "fixed"]);
    // The same digest again changes nothing.
    const again = await app.putManifest(OTHER.manifest, "fixed");
    assert.equal(again.status, 201);
  });

  void it("is refused over the quota of its registry only", async (test) => {
    const { mirror, app, twin } = await setUp(test, {
      config: {
        hosted: [
          hostedConfig({ quotaBytes: IMAGE.config.sizeBytes + 201_100 }),
          hostedConfig({ name: "second" }),
        ],
      },
    });
    for (const blob of IMAGE.blobs) await app.putBlob(blob);
    const pushed = await app.putManifest(IMAGE.manifest, "v1");
    assert.deepEqual([pushed.status, pushed.code], [403, "DENIED"]);
    assert.equal(pushed.message, "the quota of local is used up");
    assert.equal(await app.resolve("v1"), undefined);
    await twin.push(IMAGE, "v1");
    await mirror.reload({
      hosted: [hostedConfig(), hostedConfig({ name: "second" })],
    });
    assert.equal((await app.putManifest(IMAGE.manifest, "v1")).status, 201);
  });

  void it("is refused while open uploads use the rest of the quota", async (test) => {
    const { blobs, manifest } = IMAGE;
    const imageBytes = blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
    const quotaBytes = imageBytes + manifest.bytes.length + 10;
    const { app, web } = await setUp(test, {
      config: { hosted: [hostedConfig({ quotaBytes })] },
    });
    for (const blob of blobs) await app.putBlob(blob);
    const { headers } = await web.ask("POST", "blobs/uploads/");
    const upload = `blobs/uploads/${headers.get("docker-upload-uuid")}`;
    const sent = await web.ask("PATCH", upload, { body: "eleven byte" });
    assert.equal(sent.status, 202);
    const refused = await app.putManifest(manifest, "v1");
    assert.deepEqual([refused.status, refused.code], [403, "DENIED"]);
    assert.equal((await web.delete(upload)).status, 204);
    assert.equal((await app.putManifest(manifest, "v1")).status, 201);
  });
});

void describe("a hosted repository", () => {
  void it("is seen by another client as it is after each push and each deletion", async (test) => {
    const { app, client } = await setUp(test);
    const reader = client("local/team/app");
    assert.equal(await reader.resolve("v"), undefined);
    await app.push(IMAGE, "v");
    assert.equal(await reader.resolve("v"), IMAGE.manifest.digest);
    await app.push(OTHER, "v");
    assert.equal(await reader.resolve("v"), OTHER.manifest.digest);
    assert.equal(
      await reader.resolve(IMAGE.manifest.digest),
      IMAGE.manifest.digest,
    );
    assert.equal((await app.delete("manifests/v")).status, 202);
    assert.equal(await reader.resolve("v"), undefined);
    assert.equal((await app.delete("manifests/v")).code, "MANIFEST_UNKNOWN");
    const { digest } = OTHER.manifest;
    assert.equal((await reader.get(`manifests/${digest}`)).status, 200);
    assert.equal((await app.putManifest(OTHER.manifest, "w")).status, 201);
    assert.equal((await app.delete(`manifests/${digest}`)).status, 202);
    for (const reference of ["w", digest]) {
      const got = await reader.get(`manifests/${reference}`);
      assert.deepEqual([got.status, got.code], [404, "MANIFEST_UNKNOWN"]);
    }
    assert.equal((await app.delete(`manifests/${digest}`)).status, 404);
    const [, layer = NOTHING] = IMAGE.blobs;
    assert.equal((await app.delete(`blobs/${layer.digest}`)).status, 202);
    const gone = await reader.head(`blobs/${layer.digest}`);
    assert.equal(gone.status, 404);
    const twice = await app.delete(`blobs/${layer.digest}`);
    assert.deepEqual([twice.status, twice.code], [404, "BLOB_UNKNOWN"]);
  });

  void it("serves the last acknowledged of concurrent pushes of one tag", async (test) => {
    const { mirror, app } = await setUp(test);
    const images = Array.from({ length: 8 }, (_, at) =>
      buildImage({ seed: `concurrent ${at}`, layers: [100] }),
    );
    for (const image of images) await app.push(image);
    for (let round = 0; round < 5; round++) {
      const acknowledged: string[] = [];
      await Promise.all(
        images.map(async ({ manifest }) => {
          const pushed = await app.putManifest(manifest, "v");
          assert.equal(pushed.status, 201);
          acknowledged.push(manifest.digest);
        }),
      );
      const served = await app.resolve("v");
      assert.ok(served !== undefined && acknowledged.includes(served));
      for (let again = 0; again < 3; again++) {
        assert.equal(await app.resolve("v"), served);
      }
      const [, ...bytes] = [0, await app.get("manifests/v")];
      assert.equal(bytes[0]?.headers.get("docker-content-digest"), served);
    }
    const served = await app.resolve("v");
    await mirror.restart();
    const { port } = mirror;
    assert.equal(
      await new HostedClient(port, "local/team/app").resolve("v"),
      served,
    );
  });

  void it("is not mixed with another repository, registry or upstream of the same spelling", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("team/app", DOCKER, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      config: { hosted: [hostedConfig(), hostedConfig({ name: "second" })] },
    });
    const client = (name: string) => new HostedClient(mirror.port, name);
    const mirrored = client("team/app");
    assert.equal(await mirrored.resolve("v"), DOCKER.manifest.digest);
    await client("local/team/app").push(IMAGE, "v");
    await client("second/team/app").push(OTHER, "v");
    for (const [name, image] of [
      ["team/app", DOCKER],
      ["local/team/app", IMAGE],
      ["second/team/app", OTHER],
    ] as const) {
      assert.equal(await client(name).resolve("v"), image.manifest.digest);
      for (const other of [DOCKER, IMAGE, OTHER]) {
        const status = other === image ? 200 : 404;
        for (const path of [
          `manifests/${other.manifest.digest}`,
          `blobs/${other.config.digest}`,
        ]) {
          assert.equal((await client(name).get(path)).status, status);
        }
      }
    }
    assert.equal(
      (await client("local/team/web").get("manifests/v")).status,
      404,
    );
  });

  void it("keeps everything over a restart", async (test) => {
    const { mirror, app, twin } = await setUp(test);
    await app.push(IMAGE, "v1");
    await app.push(OTHER);
    await twin.push(DOCKER, "v1");
    await mirror.restart();
    const { port } = mirror;
    const client = new HostedClient(port, "local/team/app");
    assert.deepEqual(await client.tags(), ["v1"]);
    for (const image of [IMAGE, OTHER]) {
      const got = await client.get(`manifests/${image.manifest.digest}`);
      assert.deepEqual(got.body, image.manifest.bytes);
      for (const blob of image.blobs) {
        const { body } = await client.get(`blobs/${blob.digest}`);
        assert.deepEqual(body, blob.bytes());
      }
    }
    const second = new HostedClient(port, "second/team/app");
    assert.equal(await second.resolve("v1"), DOCKER.manifest.digest);
  });
});

void describe("lists of hosted content", () => {
  void it("page through tags in byte order, with a link in the client's spelling", async (test) => {
    const { app, client } = await setUp(test);
    await app.push(IMAGE);
    for (const tag of ["b", "_", "A", "a", "1", "a.b"]) {
      await app.putManifest(IMAGE.manifest, tag);
    }
    const sorted = ["1", "A", "_", "a", "a.b", "b"];
    assert.deepEqual(await app.tags(), sorted);
    const first = await app.get("tags/list?n=4");
    assert.deepEqual(JSON.parse(first.body.toString()), {
      name: "local/team/app",
      tags: sorted.slice(0, 4),
    });
    assert.equal(
      first.headers.get("link"),
      '</v2/local/team/app/tags/list?n=4&last=a>; rel="next"',
    );
    const second = await app.get("tags/list?n=4&last=a");
    assert.deepEqual(JSON.parse(second.body.toString()), {
      name: "local/team/app",
      tags: ["a.b", "b"],
    });
    assert.equal(second.headers.get("link"), null);
    const byNs = await client("team/app").get("tags/list?n=5&ns=local");
    assert.equal(
      byNs.headers.get("link"),
      '</v2/team/app/tags/list?n=5&last=a.b&ns=local>; rel="next"',
    );
    const none = await app.get("tags/list?n=0");
    assert.deepEqual(JSON.parse(none.body.toString()), {
      name: "local/team/app",
      tags: [],
    });
    assert.equal(none.headers.get("link"), null);
  });

  void it("are NAME_UNKNOWN for a repository that was never pushed, and after its last manifest", async (test) => {
    const { app, web } = await setUp(test);
    await app.push(IMAGE, "v");
    const unknown = await web.get("tags/list");
    assert.deepEqual([unknown.status, unknown.code], [404, "NAME_UNKNOWN"]);
    await app.delete("manifests/v");
    assert.deepEqual(await app.tags(), []);
    await app.delete(`manifests/${IMAGE.manifest.digest}`);
    assert.equal((await app.get("tags/list")).code, "NAME_UNKNOWN");
  });

  void it("return the referrers of a manifest, filtered by type, and never 404", async (test) => {
    const { app, web } = await setUp(test);
    await app.push(IMAGE, "v");
    const types = ["application/vnd.a", "application/vnd.b"];
    const referrers = types.map((artifactType) =>
      buildArtifact({
        seed: artifactType,
        artifactType,
        subject: IMAGE.manifest,
        annotations: { type: artifactType },
      }),
    );
    for (const referrer of referrers) await app.push(referrer);
    const path = `referrers/${IMAGE.manifest.digest}`;
    const all = await app.get(path);
    assert.equal(all.status, 200);
    assert.equal(all.headers.get("content-type"), OCI_INDEX);
    assert.equal(all.headers.get("oci-filters-applied"), null);
    const listed = (JSON.parse(all.body.toString()) as { manifests: object[] })
      .manifests;
    assert.deepEqual(
      listed,
      referrers
        .map(({ manifest }) => ({
          ...descriptorJson(manifest),
          artifactType: manifest.artifactType,
          annotations: manifest.annotations,
        }))
        .toSorted((one, other) => (one.digest < other.digest ? -1 : 1)),
    );
    const filtered = await app.get(`${path}?artifactType=${types[1]}`);
    assert.equal(filtered.headers.get("oci-filters-applied"), "artifactType");
    const { manifests } = JSON.parse(filtered.body.toString()) as {
      manifests: { digest: string }[];
    };
    assert.deepEqual(
      manifests.map(({ digest }) => digest),
      [referrers[1]?.manifest.digest],
    );
    for (const client of [app, web]) {
      const none = await client.get(`referrers/${OTHER.manifest.digest}`);
      assert.equal(none.status, 200);
      assert.deepEqual(
        (JSON.parse(none.body.toString()) as { manifests: object[] }).manifests,
        [],
      );
    }
    assert.equal((await app.get("referrers/sha256:00")).status, 400);
    await app.delete(`manifests/${referrers[0]?.manifest.digest}`);
    const rest = await app.get(path);
    assert.equal(
      (JSON.parse(rest.body.toString()) as { manifests: object[] }).manifests
        .length,
      1,
    );
  });

  void it("page through referrers that one answer can't hold, with a link that keeps the filter", async (test) => {
    const { app } = await setUp(test);
    await app.push(IMAGE, "v");
    const artifactType = "application/vnd.large";
    const digests: string[] = [];
    for (const seed of ["large a", "large b"]) {
      const referrer = buildArtifact({
        seed,
        artifactType,
        subject: IMAGE.manifest,
        annotations: { note: "n".repeat(2_200_000) },
      });
      await app.push(referrer);
      digests.push(referrer.manifest.digest);
    }
    const page = async (query: string) => {
      const path = `referrers/${IMAGE.manifest.digest}?${query}`;
      const { body, headers } = await app.get(path);
      const { manifests } = JSON.parse(body.toString()) as {
        manifests: { digest: string }[];
      };
      return {
        digests: manifests.map(({ digest }) => digest),
        link: headers.get("link"),
      };
    };
    const first = await page(`artifactType=${artifactType}`);
    const [, query = ""] = /^<[^?>]*\?([^>]*)>/.exec(first.link ?? "") ?? [];
    const type = new URLSearchParams(query).get("artifactType");
    assert.equal(type, artifactType, first.link ?? "no link");
    const second = await page(query);
    assert.deepEqual([...first.digests, ...second.digests], digests.toSorted());
    assert.equal(first.digests.length, 1);
    assert.equal(second.link, null);
  });

  void it("merge hosted and mirrored repositories in the catalog, without the prefix of the default", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/nginx", DOCKER, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      config: {
        hosted: [
          hostedConfig({ isDefault: true }),
          hostedConfig({ name: "second" }),
        ],
      },
    });
    const { port } = mirror;
    const client = (name: string) => new HostedClient(port, name);
    await client("nginx").push(IMAGE, "v");
    await client("team/zeta").push(IMAGE, "v");
    await client("second/app").push(IMAGE, "v");
    const name = upstreamOf(upstream).name;
    await client(`${name}/library/nginx`).resolve("v");
    await client(`${name}/library/nginx`).get("manifests/v");
    const names: string[] = [];
    let next: string | null = "/v2/_catalog?n=1";
    while (next !== null) {
      const page: Response = await fetch(`http://127.0.0.1:${port}${next}`);
      const body = (await page.json()) as { repositories: string[] };
      names.push(...body.repositories);
      next = /^<(.*)>/.exec(page.headers.get("link") ?? "")?.[1] ?? null;
    }
    assert.deepEqual(
      names,
      ["nginx", "team/zeta", "second/app", `${name}/library/nginx`].toSorted(),
    );
  });
});
