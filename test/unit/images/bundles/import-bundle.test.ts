import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { importBundle } from "../../../../src/images/bundles/import/import-bundle.ts";
import type { Digest } from "../../../../src/oci/digest.ts";
import { OCI_INDEX } from "../../../../src/oci/media-type.ts";
import type { Tag } from "../../../../src/oci/reference.ts";
import { IndexError } from "../../../../src/storage/metadata-index.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import {
  blobMember,
  blobMembers,
  bundleMembers,
  indexMember,
  layoutMember,
  tarOf,
  type TestMember,
} from "../../../support/bundle-archive.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
  descriptorJson,
  manifestOf,
} from "../../../support/image-builder.ts";
import {
  type ImportScene,
  openImportScene,
  tagNamed,
} from "../../../support/import-scene.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const image = buildImage({ seed: "image", layers: [50_000, 6_000] });
const other = buildImage({
  seed: "other",
  layers: [...image.layers, 7_000].slice(1),
});
const long = buildImage({ seed: "long", layers: [700], algorithm: "sha512" });
const multi = buildMultiArch({ seed: "multi", layers: [2_000_000] });
const NAME = "docker.io/library/app:1";
const members = bundleMembers({ [NAME]: image });

interface Limits {
  readonly maxBytes?: number;
}

async function setUp(
  test: AfterTest,
  limits: Limits = {},
): Promise<ImportScene> {
  return openImportScene(test, await tempDir(test), {
    ...limits,
    hosted: [hostedConfig({ immutableTags: ["**:v*"] })],
  });
}

/** Whether everything of an image is linked to the repository of its tag. */
async function isServed(
  { index }: ImportScene,
  name: string,
  digest: Digest,
): Promise<boolean> {
  const { key, tag } = tagNamed(name);
  const row = await index.getTag(key, tag);
  return (
    row?.digest === digest &&
    (await index.isComplete(key, digest, "repository"))
  );
}

/** The index of a scene, with a call after each blob that is adopted. */
function notifying(
  { index }: ImportScene,
  onAdopted: () => void,
): ImportScene["index"] {
  return new Proxy(index, {
    get: (target, name) => {
      const found: unknown = Reflect.get(target, name);
      if (typeof found !== "function") return found;
      return async (...input: unknown[]) => {
        const result: unknown = await Reflect.apply(found, target, input);
        if (name === "adoptBlob") onAdopted();
        return result;
      };
    },
  });
}

/** Asserts that an import is refused by a reason, and leaves nothing. */
async function assertRefused(
  test: AfterTest,
  reason: RegExp,
  ...args: Parameters<ImportScene["import"]>
): Promise<void> {
  const scene = await setUp(test);
  assert.match(await scene.refusal(...args), reason);
  await assertEmpty(scene);
}

async function assertEmpty(scene: ImportScene): Promise<void> {
  assert.deepEqual(await scene.files(), []);
  const { blobs, manifests, tags } = await scene.index.totals();
  assert.deepEqual([blobs, manifests, tags], [0, 0, 0]);
  const { roots } = await scene.index.listOldestRoots(10, undefined);
  assert.deepEqual(roots, []);
}

void describe("an imported bundle", () => {
  void it("is stored under the names of its images", async (test) => {
    const scene = await setUp(test);
    const all = {
      [NAME]: image,
      "docker.io/library/other:2": other,
      "quay.io/team/app:1": multi,
      "quay.io/team/long:1": long,
    };
    const report = await scene.import(bundleMembers(all));
    assert.deepEqual(
      report.images,
      Object.entries(all).map(([ref, { manifest }]) => ({
        ref,
        digest: manifest.digest,
        absentManifests: 0,
      })),
    );
    for (const [ref, { manifest }] of Object.entries(all)) {
      assert(await isServed(scene, ref, manifest.digest), ref);
    }
    const { blobs, blobBytes } = await scene.index.totals();
    assert.deepEqual(
      [report.blobs, report.bytes],
      [blobs, blobBytes],
      "each digest was stored once",
    );
    assert.equal((await scene.files()).length, report.blobs);
    // Nothing is a root besides the tags.
    const { roots } = await scene.index.listOldestRoots(10, undefined);
    assert.deepEqual(
      roots.map(({ reference }) => reference.kind),
      ["tag", "tag", "tag", "tag"],
    );
    assert.deepEqual(
      scene.audited.map(({ event }) => event),
      ["imported", "imported", "imported", "imported"],
    );
  });

  void it("is stale from the start, and was first seen when it was imported", async (test) => {
    const scene = await setUp(test);
    const beforeMs = Date.now();
    await scene.import(members);
    const { key, tag } = tagNamed(NAME);
    const row = await scene.index.getTag(key, tag);
    assert.equal(row?.verifiedAtMs, 0);
    assert(row.fetchedAtMs >= beforeMs);
    const root = await scene.index.getRoot(key, { kind: "tag", tag });
    assert(root !== undefined && root.usedAtMs >= beforeMs);
    assert.equal(root.isPinned, false);
  });

  void it("keeps the time at which its upstream confirmed the same tag", async (test) => {
    const scene = await setUp(test);
    await scene.import(members);
    const { key, tag } = tagNamed(NAME);
    await scene.index.putTag(key, tag, image.manifest.digest, 5_000);
    await scene.import(members);
    assert.equal((await scene.index.getTag(key, tag))?.verifiedAtMs, 5_000);
  });

  void it("is pinned if that is requested", async (test) => {
    const scene = await setUp(test);
    await scene.import(members, { isPinned: true });
    const { key, tag } = tagNamed(NAME);
    const root = await scene.index.getRoot(key, { kind: "tag", tag });
    assert.equal(root?.isPinned, true);
  });

  void it("has its members in any order", async (test) => {
    const scene = await setUp(test);
    await scene.import(members.toReversed());
    assert(await isServed(scene, NAME, image.manifest.digest));
  });

  void it("may have names that start with a dot, folders and files beside the layout", async (test) => {
    const scene = await setUp(test);
    const extra: TestMember[] = [
      { name: "./", bytes: Buffer.alloc(0), type: "directory" },
      { name: "./blobs/sha256/", bytes: Buffer.alloc(0), type: "directory" },
      { name: "manifest.json", bytes: Buffer.from("[]") },
      { name: "repositories", bytes: Buffer.from("{}") },
      { name: "blobs/sha256/.tmp", bytes: Buffer.from("x") },
    ];
    const dotted = members.map((each) => ({ ...each, name: `./${each.name}` }));
    await scene.import([...extra, ...dotted]);
    assert(await isServed(scene, NAME, image.manifest.digest));
    assert.equal((await scene.files()).length, 4);
  });

  for (const [format, compress] of [
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ] as const) {
    void it(`may be compressed by ${format}, in several parts`, async (test) => {
      const scene = await setUp(test);
      const bytes = await tarOf(members);
      const half = Math.floor(bytes.length / 2);
      await scene.import(
        Buffer.concat([
          compress(bytes.subarray(0, half)),
          compress(bytes.subarray(half)),
        ]),
      );
      assert(await isServed(scene, NAME, image.manifest.digest));
    });

    void it(`is refused if its ${format} data is damaged or ends early`, async (test) => {
      const whole = compress(await tarOf(members));
      const cut = whole.subarray(0, whole.length - 30_000);
      await assertRefused(test, /damaged or truncated|ends early/, cut);
      const damaged = Buffer.from(whole);
      damaged.fill(0xff, 30_000, 30_100);
      await assertRefused(
        test,
        new RegExp(`${format} data|is damaged`),
        damaged,
      );
    });
  }

  void it("may have an empty blob, which is stored once", async (test) => {
    const scene = await setUp(test);
    const empty = buildImage({ seed: "empty", layers: [0, 10] });
    const report = await scene.import(bundleMembers({ [NAME]: empty }));
    assert.equal(report.blobs, 4);
    assert(await isServed(scene, NAME, empty.manifest.digest));
    const again = await scene.import(bundleMembers({ [NAME]: empty }));
    assert.equal(again.blobs, 0);
  });

  void it("may lack platforms that its index names", async (test) => {
    const scene = await setUp(test);
    const [amd64, arm64] = multi.images;
    assert(amd64 !== undefined && arm64 !== undefined);
    const names = { [NAME]: multi };
    const without = new Set(blobMembers(arm64).map(({ name }) => name));
    const report = await scene.import(
      bundleMembers(names).filter(({ name }) => !without.has(name)),
    );
    assert.equal(report.images[0]?.absentManifests, 1);
    assert(await isServed(scene, NAME, multi.manifest.digest));
  });

  void it("leaves out blobs that no image needs", async (test) => {
    const scene = await setUp(test);
    const { blobs } = await scene.import([...members, ...blobMembers(long)]);
    assert.equal(blobs, 4);
    assert.equal((await scene.files()).length, 4);
    assert.equal((await scene.index.totals()).blobs, 4);
  });

  void it("does not write blobs again that are stored", async (test) => {
    const scene = await setUp(test);
    await scene.import(members);
    const report = await scene.import(
      bundleMembers({ [NAME]: image, "quay.io/a/b:1": other }),
    );
    // The layer that both share is stored.
    assert.equal(report.blobs, other.blobs.length - 1 + 1);
    assert(await isServed(scene, "quay.io/a/b:1", other.manifest.digest));
  });

  void it("continues where an import was killed: its blobs are stored and have no names", async (test) => {
    const scene = await setUp(test);
    const cut = new AbortController();
    const bytes = await tarOf(members);
    const adopted = Promise.withResolvers<void>();
    async function* leaving() {
      yield bytes.subarray(0, bytes.length - 2_000);
      await adopted.promise;
      cut.abort(new Error("left"));
      yield bytes.subarray(bytes.length - 2_000);
    }
    const left = importBundle(
      { ...scene.parts, index: notifying(scene, () => adopted.resolve()) },
      { bytes: leaving(), sizeBytes: undefined },
      { into: undefined, name: undefined, isPinned: false },
      {
        signal: cut.signal,
        report: () => undefined,
        sender: {
          user: undefined,
          client: "test",
          userAgent: undefined,
          host: undefined,
          method: "POST",
        },
      },
    );
    await assert.rejects(left, { message: "left" });
    const { blobs, tags } = await scene.index.totals();
    assert(blobs > 0);
    assert.equal(tags, 0);
    const { roots } = await scene.index.listOldestRoots(10, undefined);
    assert.equal(roots.length, blobs, "each may be evicted");
    const { key } = tagNamed(NAME);
    for (const { digest } of image.blobs) {
      assert.equal(await scene.index.getLinkedBlob(key, digest), undefined);
    }
    const report = await scene.import(bytes);
    assert.equal(report.blobs, 4 - blobs);
    assert(await isServed(scene, NAME, image.manifest.digest));
    assert.equal(
      (await scene.index.listOldestRoots(10, undefined)).roots.length,
      1,
    );
  });

  void it("has referrers that are served while the upstream is out of reach", async (test) => {
    const scene = await setUp(test);
    const signature = buildArtifact({
      seed: "signature",
      artifactType: "application/vnd.example.signature",
      subject: image.manifest,
      annotations: { by: "ci" },
    });
    const statement = buildArtifact({
      seed: "statement",
      artifactType: "application/vnd.example.statement",
      subject: signature.manifest,
    });
    const entries = [
      { of: signature.manifest },
      { of: statement.manifest },
      { of: image.manifest, annotations: { "io.containerd.image.name": NAME } },
    ];
    const report = await scene.import([
      layoutMember(),
      indexMember(entries),
      ...blobMembers(image, signature, statement),
    ]);
    assert.equal(report.images.length, 1);
    const { key } = tagNamed(NAME);
    const list = await scene.index.getReferrers(key, image.manifest.digest);
    assert.equal(list?.verifiedAtMs, 0);
    const { manifests } = JSON.parse(list.body.toString()) as {
      manifests: unknown[];
    };
    assert.deepEqual(manifests, [
      {
        digest: signature.manifest.digest,
        mediaType: signature.manifest.mediaType,
        size: signature.manifest.sizeBytes,
        artifactType: "application/vnd.example.signature",
        annotations: { by: "ci" },
      },
    ]);
    assert(
      await scene.index.isComplete(
        key,
        signature.manifest.digest,
        "repository",
      ),
    );
    const below = await scene.index.getReferrers(
      key,
      signature.manifest.digest,
    );
    assert.match(String(below?.body), new RegExp(statement.manifest.digest));
    // A second import adds nothing to the list.
    await scene.import([
      layoutMember(),
      indexMember(entries),
      ...blobMembers(image, signature, statement),
    ]);
    const again = await scene.index.getReferrers(key, image.manifest.digest);
    assert.deepEqual(again?.body, list.body);
  });
});

void describe("a bundle that continues another one", () => {
  const base = bundleMembers({ [NAME]: image });
  const indexJson = base.find(({ name }) => name === "index.json");
  assert(indexJson !== undefined);
  const baseDigest = `sha256:${createHash("sha256").update(indexJson.bytes).digest("hex")}`;
  const shared = new Set(base.map(({ name }) => name));
  const next = [
    layoutMember(),
    indexMember(
      [
        {
          of: other.manifest,
          annotations: {
            "io.containerd.image.name": "docker.io/library/next:1",
          },
        },
        {
          of: image.manifest,
          annotations: { "io.containerd.image.name": NAME },
        },
      ],
      { "io.entrepot.bundle.base": baseDigest },
    ),
    ...blobMembers(other).filter(({ name }) => !shared.has(name)),
  ];

  void it("uses the blobs that its base left in the same registry", async (test) => {
    const scene = await setUp(test);
    await scene.import(base);
    const report = await scene.import(next);
    assert.equal(report.images.length, 2);
    assert(
      await isServed(scene, "docker.io/library/next:1", other.manifest.digest),
    );
  });

  void it("is refused without its base, which is named", async (test) => {
    await assertRefused(
      test,
      new RegExp(`base .* missing.*${baseDigest}`),
      next,
    );
  });

  void it("is refused if only another registry has the blobs of its base", async (test) => {
    const scene = await setUp(test);
    await scene.import(bundleMembers({ "quay.io/library/app:1": image }));
    const before = await scene.files();
    assert.match(await scene.refusal(next), /base of the bundle is missing/);
    assert.deepEqual(await scene.files(), before);
  });

  void it("uses blobs of the hosted registry that it is imported into", async (test) => {
    const scene = await setUp(test);
    await scene.import(base, { into: "local/team" });
    await scene.import(next, { into: "local/team" });
    assert(
      await isServed(scene, "local/team/library/next:1", other.manifest.digest),
    );
  });
});

void describe("a refused bundle leaves nothing", () => {
  const [layer] = image.layers;
  assert(layer !== undefined);
  const layerName = blobMember(layer).name;

  void it("if a byte is flipped, with the name of the member", async (test) => {
    for (const { name } of members.slice(2)) {
      const damaged = members.map((each) => {
        const bytes = Buffer.from(each.bytes);
        if (each.name === name) bytes.writeUInt8((bytes[7] ?? 0) ^ 1, 7);
        return { ...each, bytes };
      });
      await assertRefused(test, new RegExp(`${name} is damaged`), damaged);
    }
  });

  void it("if the archive ends early, anywhere", async (test) => {
    const bytes = await tarOf(members);
    for (const at of [0, 100, 512, 1_500, 20_000, bytes.length - 1_024]) {
      await assertRefused(test, /ends early/, bytes.subarray(0, at));
    }
  });

  void it("if it is not an archive, or has bytes after its end", async (test) => {
    await assertRefused(
      test,
      /^the archive is damaged before its first member, or is not a tar archive$/,
      Buffer.alloc(10_000, "x"),
    );
    await assertRefused(
      test,
      /^the archive ends early before its first member, or is not a tar archive$/,
      Buffer.from("upstreams: {}\n"),
    );
    const bytes = await tarOf(members);
    await assertRefused(
      test,
      /is damaged/,
      Buffer.concat([bytes, Buffer.alloc(512, "x")]),
    );
  });

  void it("if a part of an image is missing, which is named", async (test) => {
    for (const { digest } of [...image.blobs, image.manifest]) {
      await assertRefused(
        test,
        new RegExp(`does not have .*${digest}`),
        members.filter(
          ({ name }) => name !== `blobs/${digest.replace(":", "/")}`,
        ),
      );
    }
  });

  void it("if no platform of an index is complete", async (test) => {
    const [index] = blobMembers({ ...multi, images: [] });
    assert(index !== undefined);
    await assertRefused(test, /does not have/, [
      ...bundleMembers({ [NAME]: multi }).slice(0, 2),
      index,
    ]);
  });

  const odd: readonly (readonly [string, RegExp, TestMember])[] = [
    [
      "a symbolic link",
      /got a link/,
      {
        name: "blobs/x",
        bytes: Buffer.alloc(0),
        type: "symlink",
        linkname: "/etc",
      },
    ],
    [
      "a hard link",
      /got a link/,
      {
        name: "blobs/x",
        bytes: Buffer.alloc(0),
        type: "link",
        linkname: layerName,
      },
    ],
    [
      "a device",
      /got a character-device/,
      { name: "null", bytes: Buffer.alloc(0), type: "character-device" },
    ],
    [
      "a pipe",
      /got a fifo/,
      { name: "pipe", bytes: Buffer.alloc(0), type: "fifo" },
    ],
    [
      "an absolute name",
      /is absolute/,
      { name: "/blobs/x", bytes: Buffer.alloc(3) },
    ],
    [
      "a name that leaves the archive",
      /leaves the archive/,
      { name: "blobs/../../x", bytes: Buffer.alloc(3) },
    ],
    [
      "a name with a backslash",
      /illegal character/,
      { name: "blobs\\x", bytes: Buffer.alloc(3) },
    ],
    ["the same blob twice", /got it twice/, blobMember(layer)],
    ["a second index", /got it twice/, indexMember([])],
    ["a second layout", /got it twice/, layoutMember()],
  ];
  for (const [what, reason, member] of odd) {
    void it(`if it has ${what}`, async (test) => {
      await assertRefused(test, reason, [...members, member]);
    });
  }

  void it("if its JSON is too long or too deep", async (test) => {
    const huge = { name: "index.json", bytes: Buffer.alloc(5_000_000, " ") };
    await assertRefused(test, /at most 4194304/, [layoutMember(), huge]);
    const deep = { name: "index.json", bytes: Buffer.alloc(100_000, "[") };
    await assertRefused(test, /too deep/, [layoutMember(), deep]);
    const { manifest } = image;
    const bytes = Buffer.concat([manifest.bytes, Buffer.alloc(4_194_304, " ")]);
    const digest =
      `sha256:${createHash("sha256").update(bytes).digest("hex")}` as Digest;
    await assertRefused(test, /manifest .*: got .* at most 4194304/, [
      indexMember([
        {
          of: { ...manifest, digest },
          annotations: { "io.containerd.image.name": NAME },
        },
      ]),
      blobMember({ digest, bytes }),
    ]);
  });

  void it("if its images have too many parts, shared or not", async (test) => {
    const names = ["1", "2", "3"].map((tag) => `docker.io/library/app:${tag}`);
    const signatures = names.map((name) =>
      manifestOf(
        {
          schemaVersion: 2,
          mediaType: OCI_INDEX,
          manifests: [],
          subject: descriptorJson(image.manifest),
          annotations: { name },
        },
        OCI_INDEX,
      ),
    );
    const bundle = [
      layoutMember(),
      indexMember([
        ...signatures.map((of) => ({ of })),
        ...names.map((name) => ({
          of: image.manifest,
          annotations: { "io.containerd.image.name": name },
        })),
      ]),
      ...blobMembers(image),
      ...signatures.map(blobMember),
    ];
    // Each of three images has a manifest, a config, two layers and three signatures.
    await assertRefused(
      test,
      /got images with more than 20 manifests and blobs in all/,
      bundle,
      {},
      { maxParts: 20 },
    );
    await (await setUp(test)).import(bundle, {}, { maxParts: 21 });
  });

  void it("if its manifests name too much, before their names are known", async (test) => {
    const layers = Array.from({ length: 10 }, (_, at) => 100 + at);
    const wide = buildImage({ seed: "wide", layers });
    await assertRefused(
      test,
      /got images with more than 10 manifests and blobs in all/,
      [
        layoutMember(),
        indexMember([{ of: wide.manifest }]),
        ...blobMembers(wide),
      ],
      {},
      { maxParts: 10 },
    );
  });

  void it("if it has no index, or another version of the layout", async (test) => {
    await assertRefused(
      test,
      /without index.json/,
      members.filter(({ name }) => name !== "index.json"),
    );
    await assertRefused(test, /another version/, [
      {
        name: "oci-layout",
        bytes: Buffer.from('{"imageLayoutVersion":"2.0.0"}'),
      },
      ...members.slice(1),
    ]);
  });

  void it("if it is a docker-archive, with the command that writes an OCI archive", async (test) => {
    const hex = "a".repeat(64);
    const docker: readonly TestMember[][] = [
      [{ name: "manifest.json", bytes: Buffer.from("[]") }],
      [{ name: `${hex}/layer.tar`, bytes: Buffer.from("x") }],
      [{ name: `${hex}.tar`, bytes: Buffer.from("x") }],
      [
        {
          name: `${hex}/layer.tar`,
          bytes: Buffer.alloc(0),
          type: "symlink",
          linkname: `../${hex}.tar`,
        },
      ],
    ];
    for (const archive of docker) {
      await assertRefused(
        test,
        /docker-archive without an OCI layout.*skopeo copy docker-archive:/,
        archive,
      );
    }
  });

  void it("if its room is missing, and says how much", async (test) => {
    const scene = await setUp(test, { maxBytes: 40_000 });
    assert.match(
      await scene.refusal(members),
      /needs 50000 bytes: at least \d+ more are needed/,
    );
    await assertEmpty(scene);
    const big = bundleMembers({ [NAME]: multi });
    assert.match(
      await scene.refusal(big),
      /got a bundle of \d+ bytes; eviction.maxSize allows 40000: \d+ more/,
    );
    await assertEmpty(scene);
  });

  void it("if the index fails between two names, and restores a tag that it moved", async (test) => {
    const scene = await setUp(test);
    await scene.import(bundleMembers({ [NAME]: other }));
    const before = await scene.files();
    let names = 0;
    const index = new Proxy(scene.index, {
      get: (target, name) => {
        const found: unknown = Reflect.get(target, name);
        if (typeof found !== "function") return found;
        return (...input: unknown[]) => {
          if (name === "putTag" && ++names === 3) {
            return Promise.reject(new IndexError("failed"));
          }
          return Reflect.apply(found, target, input) as unknown;
        };
      },
    });
    const all = {
      [NAME]: image,
      "quay.io/a/b:1": image,
      "quay.io/a/b:2": image,
    };
    await scene.refusal(bundleMembers(all), { isPinned: true }, { index });
    assert(await isServed(scene, NAME, other.manifest.digest));
    const { key, tag } = tagNamed("quay.io/a/b:1");
    assert.equal(await scene.index.getTag(key, tag), undefined);
    const found = tagNamed(NAME);
    const row = await scene.index.getTag(found.key, found.tag);
    assert.equal(row?.isPinned, false);
    assert.deepEqual(await scene.index.listLostPins(10), []);
    await scene.evictor.purgeCondemned();
    assert.deepEqual(await scene.files(), before);
  });

  void it("but keeps what was stored before", async (test) => {
    const scene = await setUp(test);
    await scene.import(members);
    const before = await scene.files();
    const broken = bundleMembers({ "quay.io/a/b:1": other }).slice(0, -1);
    assert.match(await scene.refusal(broken), /does not have/);
    assert.deepEqual(await scene.files(), before);
    assert(await isServed(scene, NAME, image.manifest.digest));
  });
});

void describe("an import into a hosted registry", () => {
  void it("drops the registry's name", async (test) => {
    const scene = await setUp(test);
    const report = await scene.import(
      bundleMembers({ [NAME]: image, "quay.io/a/b:1": multi }),
      { into: "local/team" },
    );
    assert.deepEqual(
      report.images.map(({ ref }) => ref),
      ["local/team/library/app:1", "local/team/a/b:1"],
    );
    assert(
      await isServed(scene, "local/team/library/app:1", image.manifest.digest),
    );
    assert(await isServed(scene, "local/team/a/b:1", multi.manifest.digest));
    assert.deepEqual(
      scene.events.filter(({ tag }) => tag !== undefined).map(({ tag }) => tag),
      ["1", "1"],
    );
    assert.deepEqual(
      (await scene.index.listOldestRoots(10, undefined)).roots,
      [],
    );
  });

  void it("records referrers for the list of their subject", async (test) => {
    const scene = await setUp(test);
    const signature = buildArtifact({
      seed: "signature",
      artifactType: "application/vnd.example.signature",
      subject: image.manifest,
    });
    await scene.import(
      [
        indexMember([
          { of: signature.manifest },
          {
            of: image.manifest,
            annotations: { "io.containerd.image.name": NAME },
          },
        ]),
        ...blobMembers(image, signature),
      ],
      { into: "local" },
    );
    const { key } = tagNamed("local/library/app:1");
    const found = await scene.index.listHostedReferrers(
      key,
      image.manifest.digest,
      { artifactTypes: [], limit: 10, last: undefined },
    );
    assert.deepEqual(
      found.map(({ digest }) => digest),
      [signature.manifest.digest],
    );
  });

  void it("is refused for an immutable tag, and leaves nothing", async (test) => {
    const scene = await setUp(test);
    await scene.import(bundleMembers({ "local/app:v1": image }));
    const before = await scene.files();
    assert.match(
      await scene.refusal(
        bundleMembers({ "local/new:1": other, "local/app:v1": other }),
      ),
      /local\/app:v1 is immutable/,
    );
    assert.deepEqual(await scene.files(), before);
    assert(await isServed(scene, "local/app:v1", image.manifest.digest));
    // The same digest is no change.
    await scene.import(bundleMembers({ "local/app:v1": image }));
  });

  void it("that fails between two names moves tags back, and leaves the images that it found", async (test) => {
    const scene = await setUp(test);
    await scene.import(bundleMembers({ "local/app:1": image }));
    const before = await scene.files();
    let names = 0;
    const { putManifest } = scene.parts;
    const failing: typeof putManifest = (repository, pushed) => {
      const isSecond = pushed.tags.length > 0 && ++names === 2;
      return isSecond
        ? Promise.reject(new IndexError("failed"))
        : putManifest(repository, pushed);
    };
    await scene.refusal(
      bundleMembers({ "local/app:1": other, "local/b:1": other }),
      { isPinned: true },
      { putManifest: failing },
    );
    assert(await isServed(scene, "local/app:1", image.manifest.digest));
    const app = tagNamed("local/app:1");
    const row = await scene.index.getTag(app.key, app.tag);
    assert.equal(row?.isPinned, false);
    const { key, tag } = tagNamed("local/b:1");
    assert.equal(await scene.index.getTag(key, tag), undefined);
    await scene.evictor.purgeCondemned();
    assert.deepEqual(await scene.files(), before);
  });

  void it("that fails keeps every part of an image that was pushed meanwhile", async (test) => {
    const scene = await setUp(test);
    const { putManifest } = scene.parts;
    const failing: typeof putManifest = async (repository, pushed) => {
      if (pushed.tags.length === 0) return putManifest(repository, pushed);
      await putManifest(repository, { ...pushed, tags: ["pushed" as Tag] });
      throw new IndexError("failed");
    };
    await scene.refusal(
      bundleMembers({ "local/app:1": image }),
      {},
      { putManifest: failing },
    );
    assert(await isServed(scene, "local/app:pushed", image.manifest.digest));
    await scene.evictor.purgeCondemned();
    assert.equal((await scene.files()).length, 4);
  });

  void it("is refused over quota, and leaves nothing", async (test) => {
    const scene = await openImportScene(test, await tempDir(test), {
      hosted: [hostedConfig({ quotaBytes: 60_000 })],
    });
    await scene.import(bundleMembers({ "local/small:1": long }));
    const before = await scene.files();
    assert.match(
      await scene.refusal(
        bundleMembers({ "local/a:1": other, "local/b:1": image }),
      ),
      /the quota of local is used up/,
    );
    const { key, tag } = tagNamed("local/a:1");
    assert.equal(await scene.index.getTag(key, tag), undefined);
    await scene.evictor.purgeCondemned();
    assert.deepEqual(await scene.files(), before);
  });
});
