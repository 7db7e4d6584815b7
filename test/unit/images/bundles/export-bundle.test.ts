import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readBase } from "../../../../src/images/bundles/export/export-base.ts";
import { openBundle } from "../../../../src/images/bundles/export/export-bundle.ts";
import { WrongBlobError } from "../../../../src/images/bundles/export/stored-member.ts";
import { type Digest, digestOf } from "../../../../src/oci/digest.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { OCI_INDEX } from "../../../../src/oci/media-type.ts";
import { referrersTag } from "../../../../src/oci/reference.ts";
import {
  blobsOf,
  exportScene,
  type ExportScene,
  readBundle,
  repository,
  tag,
} from "../../../support/bundles.ts";
import { pushImage } from "../../../support/hosted-images.ts";
import {
  buildArtifact,
  buildImage,
  buildIndex,
  buildMultiArch,
  buildReferrersIndex,
  descriptorJson,
  manifestOf,
  type TestImage,
  type TestIndex,
} from "../../../support/image-builder.ts";
import {
  storeBlob,
  storeImage,
  storeIndex,
  storeManifest,
} from "../../../support/stored-images.ts";

const base = buildImage({ seed: "base", layers: [5_000, 600_000] });
const app = buildImage({ seed: "app", layers: [...base.layers, 7_000] });
const multi = buildMultiArch({ seed: "multi", layers: [3_000] });
const long = buildImage({ seed: "long", layers: [900], algorithm: "sha512" });
const NAME = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME = "io.containerd.image.name";
const MANIFESTS = "io.entrepot.bundle.manifests";
const BASE = "io.entrepot.bundle.base";

const one = repository("one.example/base");
const two = repository("two.example/team/app");
const local = repository("local/app");

function digestsOf(...images: readonly TestImage[]): string[] {
  const digests = images.flatMap(({ manifest, blobs }) => [
    manifest.digest,
    ...blobs.map(({ digest }) => digest),
  ]);
  return [...new Set<string>(digests)].toSorted();
}

function imageOf({ images }: TestIndex, at: number): TestImage {
  const image = images[at];
  assert(image !== undefined);
  return image;
}

async function storeAll(scene: ExportScene): Promise<void> {
  await storeImage(scene, one, base, tag("1"));
  await storeImage(scene, two, app, tag("2"));
  await storeIndex(scene, two, multi, tag("multi"));
  await pushImage(scene, local, base, [tag("1")]);
}

function refused(detail: string) {
  return (error: unknown): boolean => {
    assert(error instanceof RegistryError, String(error));
    assert.equal(error.detail, detail);
    return true;
  };
}

void describe("an exported bundle", () => {
  void it("has the layout and the index first, then each blob once by digest", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const { archive, report } = await scene.open({
      refs: ["two.example/team/app:2", "one.example/base:1", "local/app:1"],
    });
    const bundle = await readBundle(archive);
    assert.deepEqual(bundle.paths.slice(0, 2), ["oci-layout", "index.json"]);
    assert.equal(
      bundle.members.get("oci-layout")?.toString(),
      '{"imageLayoutVersion":"1.0.0"}',
    );
    const wanted = digestsOf(base, app);
    assert.deepEqual(blobsOf(bundle), wanted);
    assert.deepEqual(
      bundle.index.manifests.map(({ digest, annotations }) => [
        annotations?.[NAME],
        annotations?.[CONTAINERD_NAME],
        digest,
      ]),
      [
        ["local/app:1", "local/app:1", base.manifest.digest],
        ["one.example/base:1", "one.example/base:1", base.manifest.digest],
        [
          "two.example/team/app:2",
          "two.example/team/app:2",
          app.manifest.digest,
        ],
      ],
    );
    assert.equal(report.blobs, wanted.length);
    assert.equal(
      report.bytes,
      [...bundle.members]
        .filter(([path]) => path.startsWith("blobs/"))
        .reduce((sum, [, { length }]) => sum + length, 0),
    );
    assert.deepEqual(
      [report.images.length, report.omittedBlobs, report.omittedBytes],
      [3, 0, 0],
    );
  });

  void it("has the same bytes from every storage with the same content", async (test) => {
    const scenes = [await exportScene(test), await exportScene(test)] as const;
    await storeAll(scenes[0]);
    await pushImage(scenes[1], local, base, [tag("1")], 900);
    await storeIndex(scenes[1], two, multi, tag("multi"), 800);
    await storeImage(scenes[1], two, app, tag("2"), 700);
    await storeImage(scenes[1], one, base, tag("1"), 600);
    const refs = ["two.example/**", "one.example/base:1", "local/app:1"];
    const bundles = [
      await scenes[0].read({ refs }),
      await scenes[0].read({ refs }),
      await scenes[1].read({ refs: refs.toReversed() }),
    ];
    const [first, ...others] = bundles.map(({ bytes }) => bytes);
    for (const bytes of others) assert(first?.equals(bytes));
  });

  void it("names images by a digest, and keeps blobs of sha512", async (test) => {
    const scene = await exportScene(test);
    await storeImage(scene, one, long, tag("long"));
    const ref = `one.example/base@${long.manifest.digest}`;
    const bundle = await scene.read({ refs: [ref] });
    assert.deepEqual(blobsOf(bundle), digestsOf(long));
    assert.equal(bundle.index.manifests[0]?.annotations?.[NAME], ref);
  });

  void it("has the platforms of an index that are completely stored, and says which", async (test) => {
    const scene = await exportScene(test);
    const amd64 = imageOf(multi, 0);
    const arm64 = imageOf(multi, 1);
    await storeManifest(scene, two, multi.manifest);
    await storeImage(scene, two, amd64, tag("amd64"));
    // As fetched in the background: without its layers.
    await storeManifest(scene, two, arm64.manifest);
    await storeBlob(scene, two, arm64.config);
    await scene.index.putTag(two, tag("multi"), multi.manifest.digest, 1);
    const bundle = await scene.read({ refs: ["two.example/team/app:multi"] });
    assert.deepEqual(
      blobsOf(bundle),
      [...digestsOf(amd64), multi.manifest.digest].toSorted(),
    );
    const [descriptor] = bundle.index.manifests;
    assert.equal(descriptor?.digest, multi.manifest.digest);
    assert.equal(descriptor.annotations?.[MANIFESTS], amd64.manifest.digest);
  });

  void it("has only the wanted platforms, which must be stored", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const refs = ["two.example/team/app:multi"];
    const bundle = await scene.read({ refs, platforms: ["linux/arm64"] });
    const arm64 = imageOf(multi, 1);
    assert.deepEqual(
      blobsOf(bundle),
      [...digestsOf(arm64), multi.manifest.digest].toSorted(),
    );
    await assert.rejects(
      scene.open({ refs, platforms: ["linux/arm64", "linux/s390x"] }),
      refused(
        "two.example/team/app:multi has no linux/s390x; it has linux/amd64, linux/arm64/v8",
      ),
    );
    const [layer] = arm64.layers;
    assert(layer !== undefined);
    await scene.blobs.remove(layer.digest);
    await scene.index.forgetBlob(layer.digest);
    await assert.rejects(
      scene.open({ refs, platforms: ["linux/arm64"] }),
      refused(
        `two.example/team/app:multi is not complete: ${layer.digest} not stored; run 'entrepot warm two.example/team/app:multi'`,
      ),
    );
  });

  void it("has the images that lists select among the stored ones", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    for (const name of ["1.0.0", "1.2.0", "2.0.0"]) {
      await scene.index.putTag(one, tag(name), base.manifest.digest, 1);
    }
    const lists = [
      {
        name: "sync.yaml",
        text: 'one.example:\n  images-by-semver:\n    base: "^1.1"\n',
      },
      { name: "more.txt", text: "two.example/team/app:2\n" },
    ];
    const bundle = await scene.read({ lists });
    assert.deepEqual(
      bundle.index.manifests.map(({ annotations }) => annotations?.[NAME]),
      ["one.example/base:1.2.0", "two.example/team/app:2"],
    );
    await assert.rejects(
      scene.open({
        lists: [
          {
            name: "none.yaml",
            text: 'one.example:\n  images-by-semver:\n    base: "^3"\n',
          },
        ],
      }),
      refused("none.yaml:3: no stored tag of one.example/base matches"),
    );
  });

  void it("has an image without an index whole, for any platform", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const bundle = await scene.read({
      refs: ["one.example/base:1"],
      platforms: ["linux/arm64"],
    });
    assert.deepEqual(blobsOf(bundle), digestsOf(base));
  });

  void it("is refused with the name of every image that cannot be exported", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    await storeManifest(scene, two, buildImage({ seed: "half" }).manifest);
    const half = buildImage({ seed: "half" });
    await scene.index.putTag(two, tag("half"), half.manifest.digest, 1);
    const [config, layer] = half.blobs;
    await assert.rejects(
      scene.open({
        refs: [
          "one.example/base:1",
          "one.example/base:gone",
          "local/app:gone",
          "none.example/*",
          "two.example/team/app:h*",
          "not a reference",
        ],
      }),
      refused(
        [
          "no image matches none.example/*",
          "not a reference is not a reference",
          "one.example/base:gone is not stored; run 'entrepot warm one.example/base:gone'",
          "local/app:gone is not stored",
          `two.example/team/app:half is not complete: ${config?.digest}, ${layer?.digest} not stored; run 'entrepot warm two.example/team/app:half'`,
        ].join("\n"),
      ),
    );
    await assert.rejects(scene.open({ refs: [] }), {
      detail: "the request names no image",
    });
  });

  void it("has blobs of another repository only if its upstream shares them", async (test) => {
    const scene = await exportScene(test);
    for (const registry of ["shared.example", "private.example"]) {
      await storeImage(scene, repository(`${registry}/base`), base, tag("1"));
      const key = repository(`${registry}/app`);
      await storeManifest(scene, key, app.manifest);
      for (const blob of app.blobs) {
        if (!base.blobs.includes(blob)) await storeBlob(scene, key, blob);
      }
      await scene.index.putTag(key, tag("2"), app.manifest.digest, 1);
    }
    const bundle = await scene.read({ refs: ["shared.example/app:2"] });
    assert.deepEqual(blobsOf(bundle), digestsOf(app));
    await assert.rejects(
      scene.open({ refs: ["private.example/app:2"] }),
      (error: unknown) =>
        error instanceof RegistryError &&
        error.detail?.includes("is not complete") === true,
    );
  });

  void it("fails as an archive if a stored blob is damaged", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const [, layer] = base.layers;
    assert(layer !== undefined);
    const wrong = layer.bytes();
    wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
    await scene.blobs.put(layer.digest, wrong);
    const { archive } = await scene.open({ refs: ["one.example/base:1"] });
    const parts: Buffer[] = [];
    await assert.rejects(
      async () => {
        for await (const part of archive) parts.push(part as Buffer);
      },
      (error: unknown) => {
        assert(error instanceof WrongBlobError);
        assert.equal(error.digest, layer.digest);
        return true;
      },
    );
    // The end of an archive is two blocks of zeros.
    assert(
      !Buffer.concat(parts)
        .subarray(-1_024)
        .every((byte) => byte === 0),
    );
    assert(!scene.blobs.isBusy(layer.digest));
  });

  void it("keeps its blobs until the archive is closed", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const digests = [base.manifest, ...base.blobs].map(({ digest }) => digest);
    const { archive } = await scene.open({ refs: ["one.example/base:1"] });
    const during = scene.blobs.claim(digests);
    during.release();
    assert.deepEqual(during.keys, []);
    archive.destroy();
    await new Promise((resolve) => archive.once("close", resolve));
    const after = scene.blobs.claim(digests);
    after.release();
    assert.equal(after.keys.length, digests.length);
    await assert.rejects(scene.open({ refs: ["one.example/**", "x/y:1"] }));
    const refusedOne = scene.blobs.claim(digests);
    refusedOne.release();
    assert.equal(refusedOne.keys.length, digests.length);
  });

  void it("is refused if it would have too many blobs", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const refs = ["one.example/base:1", "two.example/team/app:2"];
    const count = digestsOf(base, app).length;
    const open = (maxBlobs: number) =>
      openBundle(
        { ...scene.parts, maxBlobs },
        {
          refs,
          lists: [],
          platforms: [],
          withReferrers: false,
          since: undefined,
        },
        { signal: new AbortController().signal },
      );
    (await open(count)).archive.destroy();
    await assert.rejects(
      open(count - 1),
      refused(
        `got more than ${count - 1} blobs or 10000 images; expected fewer: export them in several bundles`,
      ),
    );
  });

  void it("is refused if indexes name the same children over and over", async (test) => {
    const scene = await exportScene(test);
    await storeIndex(scene, two, multi, tag("1"));
    // Each level has two indexes, which both name both indexes of the level below.
    let level = [multi.manifest];
    for (let depth = 0; depth < 7; depth++) {
      const below = level;
      level = ["a", "b"].map((seed) =>
        manifestOf(
          {
            schemaVersion: 2,
            mediaType: OCI_INDEX,
            manifests: below.map(descriptorJson),
            annotations: { seed },
          },
          OCI_INDEX,
        ),
      );
      for (const manifest of level) await storeManifest(scene, two, manifest);
    }
    const [top] = level;
    assert(top !== undefined);
    const ref = `two.example/team/app@${top.digest}`;
    const open = (maxNamedParts: number) =>
      openBundle(
        { ...scene.parts, maxNamedParts },
        {
          refs: [ref],
          lists: [],
          platforms: [],
          withReferrers: false,
          since: undefined,
        },
        { signal: new AbortController().signal },
      );
    (await open(2_000)).archive.destroy();
    await assert.rejects(open(100), (error) => {
      assert(error instanceof RegistryError);
      assert.match(
        error.detail ?? "",
        /got an image that names more than 100 manifests and blobs/,
      );
      return true;
    });
  });

  void it("ends with the signal", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const abort = new AbortController();
    abort.abort(new Error("the client has left"));
    await assert.rejects(
      scene.open({ refs: ["one.example/**"] }, abort.signal),
      { message: "the client has left" },
    );
  });
});

void describe("a bundle that continues another one", () => {
  void it("has only blobs that the earlier one does not hold, and names it", async (test) => {
    const scene = await exportScene(test);
    await storeAll(scene);
    const first = await scene.open({ refs: ["one.example/base:1"] });
    const { indexDigest } = first.report;
    const earlier = await readBundle(first.archive);
    const held = blobsOf(earlier);
    await storeImage(scene, one, app, tag("2"));
    const registry = "one.example";
    const { digest: earlierImage } = base.manifest;
    for (const content of [
      { blobs: base.blobs.map((blob) => blob.digest), subject: undefined },
      // As read from `index.json` alone.
      undefined,
    ]) {
      const manifests = [{ digest: earlierImage, registry, content }];
      const since = { indexDigest, manifests };
      const refs = ["one.example/base:1", "one.example/base:2"];
      const { archive, report } = await scene.open({ refs, since });
      const later = await readBundle(archive);
      assert.deepEqual(
        blobsOf(later),
        digestsOf(app).filter((digest) => !held.includes(digest)),
      );
      assert.equal(later.index.annotations?.[BASE], indexDigest);
      assert.equal(later.index.manifests.length, 2);
      assert.equal(report.omittedBlobs, held.length);
      // The reader may not use blobs of another registry.
      const other = await scene.read({ refs: ["two.example/**:2"], since });
      assert.deepEqual(blobsOf(other), digestsOf(app));
    }
  });
});

void describe("the blobs of an earlier bundle", () => {
  const registry = "one.example";
  const digests = ["image", "signature", "witness", "layer", "other"].map(
    (text) => digestOf(Buffer.from(text)),
  );
  const [image, signature, witness, layer, other] = digests as [
    Digest,
    Digest,
    Digest,
    Digest,
    Digest,
  ];

  void it("are those of its manifests, also of manifests that are no longer stored", async (test) => {
    const { parts } = await exportScene(test);
    const content = { blobs: [layer], subject: undefined };
    const manifests = [
      { digest: image, registry, content },
      { digest: other, registry: "two.example", content: undefined },
      { digest: other, registry: "unneeded.example", content: undefined },
    ];
    const held = await readBase(
      parts,
      { indexDigest: other, manifests },
      new Set([registry, "two.example"]),
    );
    assert.deepEqual(
      held,
      new Map([
        [registry, new Set([image, layer])],
        ["two.example", new Set([other])],
      ]),
    );
  });

  void it("are those of its referrers, for the registries of their subjects", async (test) => {
    const { parts } = await exportScene(test);
    const manifests = [
      baseReferrer(witness, signature),
      baseReferrer(signature, image),
      baseReferrer(layer, other),
      { digest: image, registry, content: undefined },
    ];
    const held = await readBase(
      parts,
      { indexDigest: other, manifests },
      new Set([registry]),
    );
    assert.deepEqual(
      held,
      new Map([[registry, new Set([image, signature, witness])]]),
    );
  });

  void it("are found along a chain of very many referrers", async (test) => {
    const { parts } = await exportScene(test);
    const chain = Array.from({ length: 100_000 }, (_, at) =>
      digestOf(Buffer.from(String(at))),
    );
    const manifests = chain.map((digest, at) =>
      baseReferrer(digest, chain[at + 1] ?? image),
    );
    const held = await readBase(
      parts,
      {
        indexDigest: other,
        manifests: [
          ...manifests,
          { digest: image, registry, content: undefined },
        ],
      },
      new Set([registry]),
    );
    assert.equal(held.get(registry)?.size, 100_001);
  });
});

void describe("the referrers of an exported image", () => {
  const signature = buildArtifact({
    seed: "signature",
    artifactType: "application/vnd.example.signature",
    subject: descriptorOf(base),
  });
  const witness = buildArtifact({
    seed: "witness",
    artifactType: "application/vnd.example.witness",
    subject: descriptorOf(signature),
  });
  const cosign = buildImage({ seed: "cosign" });
  const wanted = digestsOf(base, signature, witness, cosign);

  void it("are those of the upstream's stored list, and cosign's tags", async (test) => {
    const scene = await exportScene(test);
    await storeImage(scene, one, base, tag("1"));
    const refs = ["one.example/base:1"];
    await assert.rejects(
      scene.open({ refs, withReferrers: true }),
      refused(
        "the referrers of one.example/base:1 are not stored; run 'entrepot warm --with-referrers one.example/base:1'",
      ),
    );
    await storeManifest(scene, one, signature.manifest);
    await storeManifest(scene, one, witness.manifest);
    for (const blob of [...signature.blobs, ...witness.blobs]) {
      await storeBlob(scene, one, blob);
    }
    await storeImage(
      scene,
      one,
      cosign,
      tag(`${referrersTag(base.manifest.digest)}.sig`),
    );
    for (const [subject, referrer] of [
      [base, signature],
      [signature, witness],
    ] as const) {
      const body = buildReferrersIndex([referrer.manifest]).bytes;
      assert(
        await scene.index.putReferrers(one, subject.manifest.digest, {
          body,
          verifiedAtMs: 1,
        }),
      );
    }
    const bundle = await scene.read({ refs, withReferrers: true });
    assert.deepEqual(blobsOf(bundle), wanted);
    assert.deepEqual(
      bundle.index.manifests.map(
        ({ digest, annotations }) => annotations?.[NAME] ?? digest,
      ),
      [
        "one.example/base:1",
        `one.example/base:${referrersTag(base.manifest.digest)}.sig`,
        ...[signature, witness]
          .map(({ manifest }) => manifest.digest)
          .toSorted(),
      ],
    );
    assert.deepEqual(blobsOf(await scene.read({ refs })), digestsOf(base));
  });

  void it("are those of the hosted repository", async (test) => {
    const scene = await exportScene(test);
    await pushImage(scene, local, base, [tag("1")]);
    await pushImage(scene, local, signature, []);
    await pushImage(scene, local, witness, []);
    const bundle = await scene.read({
      refs: ["local/app:1"],
      withReferrers: true,
    });
    assert.deepEqual(blobsOf(bundle), digestsOf(base, signature, witness));
  });

  void it("of a platform are those of its own manifest", async (test) => {
    const scene = await exportScene(test);
    const index = buildIndex([base, buildImage({ seed: "other" })]);
    await storeIndex(scene, one, index, tag("1"));
    await storeManifest(scene, one, signature.manifest);
    for (const blob of signature.blobs) await storeBlob(scene, one, blob);
    const body = buildReferrersIndex([signature.manifest]).bytes;
    const none = buildReferrersIndex([]).bytes;
    const row = { body, verifiedAtMs: 1 };
    await scene.index.putReferrers(one, base.manifest.digest, row);
    await scene.index.putReferrers(one, index.manifest.digest, {
      ...row,
      body: none,
    });
    const bundle = await scene.read({
      refs: ["one.example/base:1"],
      withReferrers: true,
    });
    assert(blobsOf(bundle).includes(signature.manifest.digest));
  });
});

function baseReferrer(digest: Digest, subject: Digest) {
  return { digest, registry: undefined, content: { blobs: [], subject } };
}

function descriptorOf({ manifest }: TestImage) {
  const { digest, mediaType, sizeBytes } = manifest;
  return { digest, mediaType, sizeBytes };
}
