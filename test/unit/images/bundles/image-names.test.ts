import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ImportOptions } from "../../../../src/images/bundles/bundle.ts";
import type { BundleEntry } from "../../../../src/images/bundles/import/bundle-index.ts";
import { nameImages } from "../../../../src/images/bundles/import/image-names.ts";
import { imageText } from "../../../../src/images/image-reference.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { createRoutes } from "../../../../src/routing/routes.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";
import { UPSTREAM_DEFAULTS } from "../../../support/upstream-defaults.ts";

const routes = createRoutes(
  [
    {
      ...UPSTREAM_DEFAULTS,
      name: "docker.io",
      endpoints: [],
      aliases: ["index.docker.io"],
      isDefault: true,
      libraryPrefix: true,
    },
    { ...UPSTREAM_DEFAULTS, name: "quay.io", endpoints: [] },
    { ...UPSTREAM_DEFAULTS, name: "corp.example:5000", endpoints: [] },
  ],
  [],
  [hostedConfig()],
);

const FULL = "io.containerd.image.name";
const REF = "org.opencontainers.image.ref.name";
const first = digestOf(Buffer.from("first"));
const second = digestOf(Buffer.from("second"));

function entry(
  annotations: Readonly<Record<string, string>>,
  digest = first,
): BundleEntry {
  return {
    digest,
    mediaType: undefined,
    held: undefined,
    annotations: new Map(Object.entries(annotations)),
  };
}

function names(
  entries: readonly BundleEntry[],
  options: Partial<ImportOptions> = {},
): string[] {
  const all = { into: undefined, name: undefined, ...options };
  return nameImages(entries, all, routes).map(imageText);
}

void describe("names of imported images", () => {
  const hex = first.slice("sha256:".length);
  const read: readonly {
    readonly what: string;
    readonly annotations: Readonly<Record<string, string>>;
    readonly want: string;
  }[] = [
    {
      what: "docker, containerd and hauler: the full name, and only the tag or the path",
      annotations: { [FULL]: "docker.io/library/bb:1", [REF]: "1" },
      want: "docker.io/library/bb:1",
    },
    {
      what: "podman, buildah and crane: the full name",
      annotations: { [REF]: "quay.io/team/app:2" },
      want: "quay.io/team/app:2",
    },
    {
      what: "skopeo: the name that its user wrote",
      annotations: { [REF]: "bb:1" },
      want: "docker.io/library/bb:1",
    },
    {
      what: "an alias of the registry",
      annotations: { [REF]: "index.docker.io/library/bb:1" },
      want: "docker.io/library/bb:1",
    },
    {
      what: "a registry with a port",
      annotations: { [REF]: "corp.example:5000/app:1" },
      want: "corp.example:5000/app:1",
    },
    {
      what: "no tag",
      annotations: { [REF]: "quay.io/team/app" },
      want: "quay.io/team/app:latest",
    },
    {
      what: "a digest",
      annotations: { [REF]: `quay.io/team/app@${first}` },
      want: `quay.io/team/app@${first}`,
    },
    {
      what: "a tag and a digest",
      annotations: { [REF]: `quay.io/team/app:3@${first}` },
      want: "quay.io/team/app:3",
    },
    {
      what: "a hosted name",
      annotations: { [FULL]: "local/team/app:1" },
      want: "local/team/app:1",
    },
  ];
  for (const { what, annotations, want } of read) {
    void it(`are read as ${what}`, () => {
      assert.deepEqual(names([entry(annotations)]), [want]);
    });
  }

  void it("of signatures in stores of hauler are those that cosign looks for", () => {
    const image = { [FULL]: "docker.io/library/bb:1", [REF]: "library/bb:1" };
    assert.deepEqual(
      names([
        entry({ ...image, kind: "dev.hauler/image" }),
        entry({ ...image, kind: "dev.hauler/sigs" }, second),
        entry({ ...image, kind: "dev.cosignproject.cosign/atts" }, second),
      ]),
      [
        "docker.io/library/bb:1",
        `docker.io/library/bb:sha256-${hex}.sig`,
        `docker.io/library/bb:sha256-${hex}.att`,
      ],
    );
  });

  const given: readonly {
    readonly what: string;
    readonly entries: readonly BundleEntry[];
    readonly name: string;
    readonly want: readonly string[];
  }[] = [
    {
      what: "an image without one",
      entries: [entry({})],
      name: "alpine:3",
      want: ["docker.io/library/alpine:3"],
    },
    {
      what: "an image with a tag only, whose tag stays",
      entries: [entry({ [REF]: "3" })],
      name: "quay.io/team/app",
      want: ["quay.io/team/app:3"],
    },
    {
      what: "an image with a tag only, whose tag is replaced",
      entries: [entry({ [REF]: "3" })],
      name: "quay.io/team/app:4",
      want: ["quay.io/team/app:4"],
    },
    {
      what: "the only image, whatever its name is",
      entries: [entry({ [FULL]: "localhost/app:1" })],
      name: "local/app:1",
      want: ["local/app:1"],
    },
    {
      what: "several images with a tag only",
      entries: [entry({ [REF]: "3" }), entry({ [REF]: "4" }, second)],
      name: "corp.example:5000/team/app",
      want: ["corp.example:5000/team/app:3", "corp.example:5000/team/app:4"],
    },
    {
      what: "the one without a name",
      entries: [entry({ [REF]: "quay.io/a/b:1" }), entry({}, second)],
      name: "quay.io/c/d:1",
      want: ["quay.io/a/b:1", "quay.io/c/d:1"],
    },
  ];
  for (const { what, entries, name, want } of given) {
    void it(`are given by --name to ${what}`, () => {
      assert.deepEqual(names(entries, { name }), want);
    });
  }

  void it("move below a hosted path without their registry", () => {
    const entries = [
      entry({ [REF]: "bb:1" }),
      entry({ [REF]: "quay.io/team/app:1" }, second),
    ];
    assert.deepEqual(names(entries, { into: "local/site" }), [
      "local/site/library/bb:1",
      "local/site/team/app:1",
    ]);
    assert.deepEqual(names(entries, { into: "local" }), [
      "local/library/bb:1",
      "local/team/app:1",
    ]);
  });

  const refused: readonly {
    readonly what: string;
    readonly entries: readonly BundleEntry[];
    readonly options?: Partial<ImportOptions>;
    readonly reason: RegExp;
    /** Default: the bundle's. */
    readonly code?: string;
  }[] = [
    { what: "no name", entries: [entry({})], reason: /has no name.*--name/ },
    {
      what: "only a tag",
      entries: [entry({ [REF]: "3" })],
      reason: /only the tag 3.*--name/,
    },
    {
      what: "a registry that is not configured",
      entries: [entry({ [REF]: "ghcr.io/a/b:1" })],
      reason: /ghcr.io is neither an upstream nor a hosted registry/,
    },
    {
      what: "a name that is no reference",
      entries: [entry({ [REF]: "quay.io/Team/\u0000:1" })],
      reason: /got the name quay.io\/Team\/\?:1; expected registry/,
    },
    {
      what: "another digest in the name",
      entries: [entry({ [REF]: `quay.io/a/b@${second}` })],
      reason: /has another digest/,
    },
    {
      what: "one name for two images",
      entries: [
        entry({ [REF]: "quay.io/a/b:1" }),
        entry({ [REF]: "quay.io/a/b:1" }, second),
      ],
      reason: /two images named quay.io\/a\/b:1/,
    },
    {
      what: "a signature of an image that is not there",
      entries: [entry({ [REF]: "quay.io/a/b:1", kind: "dev.hauler/sigs" })],
      reason: /signature .* of quay.io\/a\/b:1, which the bundle does not have/,
    },
    {
      what: "--name for images that have names",
      entries: [
        entry({ [REF]: "quay.io/a/b:1" }),
        entry({ [REF]: "quay.io/a/b:2" }, second),
      ],
      options: { name: "quay.io/c/d:1" },
      reason: /every image of the bundle has a name/,
      code: "NAME_INVALID",
    },
    {
      what: "one --name for two images without names",
      entries: [entry({}), entry({}, second)],
      options: { name: "quay.io/c/d:1" },
      reason: /2 images without a name/,
      code: "NAME_INVALID",
    },
    {
      what: "--into a registry that is not hosted",
      entries: [entry({ [REF]: "bb:1" })],
      options: { into: "quay.io/team" },
      reason: /expected a hosted registry/,
      code: "NAME_INVALID",
    },
    {
      what: "--into an invalid path",
      entries: [entry({ [REF]: "bb:1" })],
      options: { into: "local/Team" },
      reason: /expected lower-case names/,
      code: "NAME_INVALID",
    },
    {
      what: "--into a path that makes the name too long",
      entries: [entry({ [REF]: "bb:1" })],
      options: { into: `local/${"a".repeat(250)}` },
      reason: /too long/,
      code: "NAME_INVALID",
    },
  ];
  for (const { what, entries, options, reason, code } of refused) {
    void it(`are refused for ${what}`, () => {
      assert.throws(
        () => names(entries, options),
        (error) => {
          assert(error instanceof RegistryError);
          assert.match(String(error.detail), reason);
          assert.equal(error.code, code ?? "MANIFEST_INVALID");
          assert.equal(error.status, 400);
          return true;
        },
      );
    });
  }
});
