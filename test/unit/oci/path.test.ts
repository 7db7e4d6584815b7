import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import { RegistryError } from "../../../src/oci/errors.ts";
import {
  type DistributionTarget,
  formatDistributionPath,
  MAX_PAGE_SIZE,
  parseDistributionPath,
} from "../../../src/oci/path.ts";
import { parseTag } from "../../../src/oci/reference.ts";

const digest = digestOf(Buffer.from("a"));
const sha512 = digestOf(Buffer.from("a"), "sha512");
const hex = digest.slice("sha256:".length);

function tagged(tag: string): { kind: "tag"; tag: never } {
  return { kind: "tag", tag: tag as never };
}

void describe("parseDistributionPath", () => {
  const page = { n: undefined, last: undefined };
  const upload = {
    kind: "upload",
    session: undefined,
    digest: undefined,
    mount: undefined,
    from: undefined,
    algorithm: undefined,
  };
  const accepted: readonly {
    target: string;
    want: unknown;
    prefix?: string;
    ns?: string;
  }[] = [
    { target: "/v2/", want: { kind: "ping" } },
    { target: "/v2", want: { kind: "ping" } },
    { target: "/v2?ns=docker.io", want: { kind: "ping" }, ns: "docker.io" },
    { target: "/quay.io/v2/", want: { kind: "ping" }, prefix: "quay.io" },
    { target: "/quay.io/v2", want: { kind: "ping" }, prefix: "quay.io" },
    { target: "/a/b/v2/", want: { kind: "ping" }, prefix: "a/b" },
    {
      target: "/registry.corp%3A5000/v2/",
      want: { kind: "ping" },
      prefix: "registry.corp:5000",
    },
    { target: "/v2/_catalog", want: { kind: "catalog", ...page } },
    {
      target: "/quay.io/v2/_catalog?n=5&last=quay.io%2Fa",
      want: { kind: "catalog", n: 5, last: "quay.io/a" },
      prefix: "quay.io",
    },
    {
      target: "/v2/library/alpine/manifests/3.20",
      want: {
        kind: "manifest",
        repository: "library/alpine",
        reference: tagged("3.20"),
      },
    },
    {
      target: "/v2/library/alpine/manifests/3.20?ns=docker.io",
      want: {
        kind: "manifest",
        repository: "library/alpine",
        reference: tagged("3.20"),
      },
      ns: "docker.io",
    },
    {
      target: "/v2/a/manifests/a..b",
      want: { kind: "manifest", repository: "a", reference: tagged("a..b") },
    },
    {
      target: `/v2/a/manifests/${digest}`,
      want: {
        kind: "manifest",
        repository: "a",
        reference: { kind: "digest", digest },
      },
    },
    {
      target: `/v2/a/manifests/sha256%3a${hex}`,
      want: {
        kind: "manifest",
        repository: "a",
        reference: { kind: "digest", digest },
      },
    },
    {
      target: `/v2/quay.io/a/b/blobs/${sha512}`,
      want: { kind: "blob", repository: "quay.io/a/b", digest: sha512 },
    },
    {
      target: "/v2/a/tags/list?n=0&last=x",
      want: { kind: "tags", repository: "a", n: 0, last: "x" },
    },
    {
      target: "/v2/a/tags/list?n=1000000000",
      want: { kind: "tags", repository: "a", n: 1000, last: undefined },
    },
    {
      target: `/v2/a/tags/list?n=${"9".repeat(400)}`,
      want: { kind: "tags", repository: "a", n: 1000, last: undefined },
    },
    {
      target: "/v2/a/tags/list?ns=reg.corp%3A5000",
      want: { kind: "tags", repository: "a", ...page },
      ns: "reg.corp:5000",
    },
    {
      target: `/v2/a/referrers/${digest}`,
      want: { kind: "referrers", repository: "a", digest, artifactTypes: [] },
    },
    {
      target: `/v2/a/referrers/${digest}?artifactType=application/x+json&artifactType=&artifactType=text%2Fy`,
      want: {
        kind: "referrers",
        repository: "a",
        digest,
        artifactTypes: ["application/x+json", "text/y"],
      },
    },
    {
      target: `/v2/a/referrers/${digest}?artifactType=${"x".repeat(256)}`,
      want: { kind: "referrers", repository: "a", digest, artifactTypes: [] },
    },
    {
      target: "/v2/a/blobs/uploads/",
      want: { ...upload, repository: "a" },
    },
    {
      target: "/v2/a/blobs/uploads",
      want: { ...upload, repository: "a" },
    },
    {
      target: `/v2/a/b/blobs/uploads/0-1?digest=${digest}`,
      want: { ...upload, repository: "a/b", session: "0-1", digest },
    },
    {
      target: `/v2/a/blobs/uploads/?mount=${sha512}&from=docker.io/library/b&digest-algorithm=sha512`,
      want: {
        ...upload,
        repository: "a",
        mount: sha512,
        from: "docker.io/library/b",
        algorithm: "sha512",
      },
    },
    {
      target: `/v2/a/blobs/uploads/?mount=${digest.replace(":", "%3A")}&from=b&from=c&ns=local`,
      want: { ...upload, repository: "a", mount: digest },
      ns: "local",
    },
    {
      target: `/v2/a/manifests/${digest}?tag=1&tag=.x`,
      want: {
        kind: "manifest",
        repository: "a",
        reference: { kind: "digest", digest },
        tags: ["1", ".x"],
      },
    },
    {
      target: "/v2/a/manifests/v2",
      want: { kind: "manifest", repository: "a", reference: tagged("v2") },
    },
    // Repositories named like the API's own words.
    {
      target: "/v2/v2/tags/list",
      want: { kind: "tags", repository: "v2", ...page },
    },
    {
      target: "/quay.io/v2/v2/tags/list",
      want: { kind: "tags", repository: "v2", ...page },
      prefix: "quay.io",
    },
    {
      target: "/v2/a/blobs/uploads/manifests/list",
      want: {
        kind: "manifest",
        repository: "a/blobs/uploads",
        reference: tagged("list"),
      },
    },
    {
      target: "/v2/manifests/tags/list",
      want: { kind: "tags", repository: "manifests", ...page },
    },
    {
      target: "/v2/constructor/manifests/__proto__",
      want: {
        kind: "manifest",
        repository: "constructor",
        reference: tagged("__proto__"),
      },
    },
    // An ignored parameter is harmless.
    {
      target: "/v2/a/tags/list?__proto__=x&constructor=y&x?y#z",
      want: { kind: "tags", repository: "a", ...page },
    },
    {
      target: "/v2/a/manifests/b?n=abc",
      want: { kind: "manifest", repository: "a", reference: tagged("b") },
    },
  ];
  for (const { target, want, prefix, ns } of accepted) {
    void it(`reads ${target.slice(0, 100)}`, () => {
      assert.deepEqual(parseDistributionPath(target), {
        ok: true,
        prefix,
        ns,
        target: want,
      });
    });
  }

  const name400 = "400 NAME_INVALID";
  const digest400 = "400 DIGEST_INVALID";
  const unknown404 = "404 UNSUPPORTED";
  const refused: readonly [target: string, want: string][] = [
    ["", name400],
    ["*", name400],
    ["v2/", name400],
    ["http://evil.example/v2/", name400],
    ["//evil.example/v2/", name400],
    ["/v2//a/tags/list", name400],
    ["/v2/a//tags/list", name400],
    ["/v2/../../x", name400],
    ["/v2/../v2/a/tags/list", name400],
    ["/v2/./a/tags/list", name400],
    ["/v2/a/manifests/..", name400],
    ["/v2/a%2f..%2f..%2fetc/blobs/x", name400],
    ["/v2/%2e%2e/a/tags/list", name400],
    ["/v2/a%252e/tags/list", name400],
    ["/v2/a%253A/tags/list", name400],
    ["/v2/a/manifests/x%0d%0aX-Evil:1", name400],
    ["/v2/a/manifests/x\r\nX-Evil:1", name400],
    ["/v2/a/manifests/x\0", name400],
    ["/v2/a/manifests/x%00", name400],
    ["/v2/a/manifests/x?ns=docker.io\r\nX-Evil:1", name400],
    ["/v2/a/manifests/x y", name400],
    ["/v2/a\\b/manifests/x", name400],
    ["/v2/\u00c0\u00ae/manifests/x", name400],
    ["/v2/%c0%ae/manifests/x", name400],
    ["/v2/a:5000/manifests/x", name400],
    ["/v2/a:5000/B/manifests/x", name400],
    ["/v2/a:x/b/manifests/x", name400],
    ["/v2/a/b:5000/c/manifests/x", name400],
    ["/v2/a:/b/manifests/x", name400],
    ["/v2/Alpine/manifests/x", name400],
    ["/v2/a__b___c/tags/list", name400],
    ["/v2/-a/tags/list", name400],
    ["/v2/_a/tags/list", name400],
    ["/v2/manifests/x", name400],
    ["/v2/tags/list", name400],
    ["/v2/blobs/uploads/", name400],
    ["/v2/A/blobs/uploads/", name400],
    [`/v2/${"a".repeat(512)}/tags/list`, name400],
    [`/v2/${"a".repeat(65_536)}/tags/list`, name400],
    [`/v2/${"a/".repeat(32_768)}tags/list`, name400],
    [`/v2/a/tags/list?${"x".repeat(65_536)}`, name400],
    ["/v2/a/tags/list?last=%ff", name400],
    ["/v2/a/tags/list?last=%", name400],
    ["/v2/a/tags/list?%zz=1", name400],
    ["/v2/a/manifests/sha256:../../x", name400],
    [`/v2/a/blobs/sha256:${hex.toUpperCase()}`, digest400],
    [`/v2/a/blobs/SHA256:${hex}`, digest400],
    [`/v2/a/blobs/sha256:${hex.slice(1)}`, digest400],
    [`/v2/a/blobs/sha256:${hex}0`, digest400],
    [`/v2/a/blobs/sha512:${hex}`, digest400],
    [`/v2/a/blobs/sha1:${hex.slice(0, 40)}`, digest400],
    [`/v2/a/blobs/md5:${hex.slice(0, 32)}`, digest400],
    ["/v2/a/blobs/sha256:", digest400],
    ["/v2/a/blobs/", digest400],
    ["/v2/a/blobs/latest", digest400],
    ["/v2/a/manifests/sha256:", digest400],
    [`/v2/a/manifests/sha256:${hex.toUpperCase()}`, digest400],
    ["/v2/a/manifests/a:b", digest400],
    ["/v2/a/referrers/x", digest400],
    ["/v2/a/referrers/", digest400],
    ["/v2/a/blobs/uploads/?digest=", digest400],
    [`/v2/a/blobs/uploads/0?digest=sha256:${hex.slice(1)}`, digest400],
    [`/v2/a/blobs/uploads/0?digest=${digest}&digest=${digest}`, digest400],
    ["/v2/a/blobs/uploads/?mount=x", digest400],
    ["/v2/a/blobs/uploads/?digest-algorithm=blake3", digest400],
    ["/v2/a/manifests/", "400 TAG_INVALID"],
    ["/v2/a/manifests/.a", "400 TAG_INVALID"],
    ["/v2/a/manifests/a;.css", "400 TAG_INVALID"],
    [`/v2/a/manifests/${"a".repeat(129)}`, "400 TAG_INVALID"],
    ["/v2/a/tags/list?n=-1", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n=abc", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n=", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n=1.5", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n=1e3", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n=+5", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?n=5&n=5", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/_catalog?n=-1", "400 PAGINATION_NUMBER_INVALID"],
    ["/v2/a/tags/list?ns=a&ns=a", "404 NAME_UNKNOWN"],
    ["/v2/a/tags/list?ns=a&n%73=b", "404 NAME_UNKNOWN"],
    ["/v2/a/tags/list?ns[]=a", "404 NAME_UNKNOWN"],
    ["/v2/a/tags/list?ns%5B0%5D=a", "404 NAME_UNKNOWN"],
    [`/${"p".repeat(2_050)}/v2/a/tags/list`, "400 NAME_INVALID"],
    ["/", unknown404],
    ["/v1/_ping", unknown404],
    ["/v2x/", unknown404],
    ["/v2/a", unknown404],
    ["/v2/a/tags", unknown404],
    ["/v2/a/tags/", unknown404],
    ["/v2/a/tags/list/", unknown404],
    ["/v2/a/manifests", unknown404],
    ["/v2/a/manifests/latest/a.css", unknown404],
    ["/v2/_catalog/", unknown404],
    ["/v2/_oci/ext/discover", unknown404],
  ];
  for (const [target, want] of refused) {
    void it(`rejects ${JSON.stringify(target).slice(0, 100)} with ${want}`, () => {
      const parsed = parseDistributionPath(target);
      assert(!parsed.ok);
      const error = new RegistryError(parsed.code, parsed);
      assert.equal(`${error.status} ${error.code}`, want);
    });
  }

  void it("never repeats the client's text in an error", () => {
    for (const [target] of refused) {
      const parsed = parseDistributionPath(target);
      assert(!parsed.ok);
      assert.match(parsed.detail, /^[A-Za-z0-9 -]+$/);
    }
  });

  void it("keeps the sort position of a truncated last", () => {
    const names = fc
      .tuple(
        fc.stringMatching(/^[a-z0-9/._-]{1,512}$/),
        fc.string({ unit: "binary", maxLength: 2000 }),
      )
      .map(([head, tail]) => [head, head + tail] as const);
    fc.assert(
      fc.property(names, fc.stringMatching(/^[a-z0-9/._-]{1,512}$/), (x, y) => {
        const [head, last] = x;
        const target = `/v2/_catalog?last=${encodeURIComponent(last)}`;
        const parsed = parseDistributionPath(target);
        if (!parsed.ok) return target.length > 16_384;
        assert(parsed.target.kind === "catalog");
        const cut = parsed.target.last ?? "";
        return [head, y].every((name) => name > cut === name > last);
      }),
    );
  });

  void it("never throws, for any text", () => {
    const piece = fc.oneof(
      fc.constantFrom(
        ..."/v2/ /manifests/ /blobs/ /tags/list /uploads/ /referrers/ _catalog ? & = % %3A %2f .. // ns n last artifactType sha256:".split(
          " ",
        ),
      ),
      fc.constantFrom(digest, sha512, "a", "\0", "\r\n", "\\", "[", "+"),
      fc.string({ unit: "binary", maxLength: 8 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const parsed = parseDistributionPath(pieces.join(""));
        if (parsed.ok) {
          // Whatever is accepted is plain enough to be put in a path or a header.
          assert.match(formatDistributionPath(parsed), /^[!-~]*$/);
        } else {
          const { status } = new RegistryError(parsed.code, parsed);
          assert([400, 404].includes(status));
        }
      }),
      { numRuns: 2000 },
    );
  });

  void it("takes time linear in the length of the text", () => {
    // Each of these made a backtracking expression explode elsewhere; the cut before every
    // expression bounds them, so the longest one ends like the shortest.
    const worst = ["a", "a-", "a_", "__", "--", "a/", "/", "/.", "%3A", "%"];
    for (const unit of worst) {
      for (const length of [2000, 65_536, 4_194_304]) {
        const text = unit.repeat(length / unit.length);
        for (const target of [
          `/v2/${text}!/tags/list`,
          `/${text}/v2/`,
          text,
          `/v2/a/tags/list?${text}`,
        ]) {
          const parsed = parseDistributionPath(target);
          assert(parsed.ok || parsed.detail.length < 80);
        }
      }
    }
  });
});

void describe("formatDistributionPath", () => {
  const component = fc.stringMatching(
    /^[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}$/,
  );
  const repository = fc
    .array(component, { minLength: 1, maxLength: 4 })
    .map((components) => components.join("/"));
  const digests = fc
    .tuple(fc.uint8Array(), fc.constantFrom("sha256", "sha512"))
    .map(([bytes, algorithm]) => digestOf(bytes, algorithm));
  const tags = fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/);
  const page = {
    n: fc.option(fc.integer({ min: 0, max: MAX_PAGE_SIZE }), {
      nil: undefined,
    }),
    last: fc.option(fc.string({ unit: "grapheme" }), { nil: undefined }),
  };
  const target: fc.Arbitrary<DistributionTarget> = fc.oneof(
    fc.record({ kind: fc.constant("ping") }),
    fc.record({ kind: fc.constant("catalog"), ...page }),
    fc.record({ kind: fc.constant("tags"), repository, ...page }),
    fc.record({
      kind: fc.constant("manifest"),
      repository,
      reference: fc.oneof(
        digests.map((text) => ({ kind: "digest" as const, digest: text })),
        tags.map((text) => {
          const tag = parseTag(text);
          assert(tag !== undefined);
          return { kind: "tag" as const, tag };
        }),
      ),
    }),
    fc.record({ kind: fc.constant("blob"), repository, digest: digests }),
    fc.record({
      kind: fc.constant("referrers"),
      repository,
      digest: digests,
      artifactTypes: fc.array(fc.string({ minLength: 1 }), { maxLength: 4 }),
    }),
    fc.record({
      kind: fc.constant("manifest"),
      repository,
      reference: digests.map((text) => ({
        kind: "digest" as const,
        digest: text,
      })),
      tags: fc.array(fc.string(), { minLength: 1, maxLength: 4 }),
    }),
    fc.record({
      kind: fc.constant("upload"),
      repository,
      session: fc.option(fc.stringMatching(/^[a-z0-9-]{1,64}$/), {
        nil: undefined,
      }),
      digest: fc.option(digests, { nil: undefined }),
      mount: fc.option(digests, { nil: undefined }),
      from: fc.option(fc.string(), { nil: undefined }),
      algorithm: fc.option(fc.constantFrom("sha256", "sha512"), {
        nil: undefined,
      }),
    }),
  );
  const path = fc.record({
    prefix: fc.option(
      fc
        .stringMatching(/^[a-zA-Z0-9.:-]{1,30}$/)
        .filter((text) => !/^(\.{1,2}|v2)$/.test(text)),
      { nil: undefined },
    ),
    ns: fc.option(fc.string({ unit: "grapheme" }), { nil: undefined }),
    target,
  });

  void it("is the inverse of parseDistributionPath", () => {
    fc.assert(
      fc.property(path, (wanted) => {
        assert.deepEqual(
          parseDistributionPath(formatDistributionPath(wanted)),
          { ok: true, ...wanted, target: { ...wanted.target } },
        );
      }),
      { numRuns: 1000 },
    );
  });
});
