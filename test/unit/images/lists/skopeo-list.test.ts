import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { outlineList } from "../../../support/list-outline.ts";

const DIGEST = `sha256:${"0".repeat(32)}${"1".repeat(32)}`;

/** The example of skopeo-sync(1). */
const DOCUMENTED = `registry.example.com:
    images:
        busybox: []
        redis:
            - "1.0"
            - "2.0"
            - "${DIGEST}"
    images-by-tag-regex:
        nginx: ^1\\.13\\.[12]-alpine-perl$
    images-by-semver:
        alpine: ">= 3.12.0"
    credentials:
        username: john
        password: this is a secret
    tls-verify: true
    cert-dir: /home/john/certs
quay.io:
    tls-verify: false
    images:
        coreos/etcd:
            - latest
`;

void describe("skopeo lists", () => {
  void it("reads the example of skopeo's manual", () => {
    const tags = [
      "1.13.1-alpine-perl",
      "1.13.2-alpine-perl",
      "1.13.3-alpine-perl",
      "3.11.9",
      "3.12.0",
      "3.12.1",
      "4.0.0",
      "4.0.0-rc.1",
      "latest",
    ];
    const outline = outlineList(DOCUMENTED, { tags });
    assert.deepEqual(outline.entries, [
      `3 registry.example.com/busybox: ${tags.join(" ")}`,
      "5 registry.example.com/redis:1.0",
      "6 registry.example.com/redis:2.0",
      `7 registry.example.com/redis@${DIGEST}`,
      "9 registry.example.com/nginx: 1.13.1-alpine-perl 1.13.2-alpine-perl",
      "11 registry.example.com/alpine: 3.12.0 3.12.1 4.0.0",
      "21 quay.io/coreos/etcd:latest",
    ]);
    assert.deepEqual(outline.faults, []);
    assert.deepEqual(outline.notes, [
      "12 credentials is not used; expected upstreams.<registry>.credentials in the configuration",
      "15 tls-verify is not used; expected upstreams.<registry>.tls in the configuration",
      "16 cert-dir is not used; expected upstreams.<registry>.tls in the configuration",
      "18 tls-verify is not used; expected upstreams.<registry>.tls in the configuration",
    ]);
    assert.doesNotMatch(JSON.stringify(outline), /john|secret/);
  });

  const CASES: readonly {
    readonly name: string;
    readonly list: string;
    readonly entries?: readonly string[];
    readonly faults?: readonly string[];
    readonly notes?: readonly string[];
  }[] = [
    {
      name: "takes unquoted numbers as they are written",
      list: "r.io:\n  images:\n    a: [1.0, 1.10, 0x1f, 1e3, 08, true, 2020-01-02]",
      entries: ["1.0", "1.10", "0x1f", "1e3", "08", "true", "2020-01-02"].map(
        (tag) => `3 r.io/a:${tag}`,
      ),
    },
    {
      name: "takes an absent list of tags for every tag",
      list: "r.io:\n  images:\n    a:\n    b: ~\n    c: null",
      entries: ["3 r.io/a: 1 2", "4 r.io/b: 1 2", "5 r.io/c: 1 2"],
    },
    {
      name: "rejects a bad tag and reads the others",
      list: "r.io:\n  images:\n    a: [good, 'not good', ~, 'sha256:abc', '']",
      entries: ["3 r.io/a:good"],
      faults: ['"not good"', "nothing", '"sha256:abc"', '""'].map(
        (text) => `3 got ${text} for "r.io/a"; expected a tag or a digest`,
      ),
    },
    {
      name: "rejects a bad pattern and reads the other patterns of the registry",
      list: "r.io:\n  images-by-tag-regex:\n    a: '(?=x)'\n    b: '^2$'\n  images-by-semver:\n    c: ''\n    d: '2'",
      entries: ["4 r.io/b: 2", "7 r.io/d: 2"],
      faults: [
        '3 "r.io/a": got a pattern with an error (invalid or unsupported Perl syntax: `(?=`); expected the syntax of RE2',
        '6 "r.io/c": got ""; expected comparisons such as ">=1.2, <2 || ^3.1" (Masterminds semver)',
      ],
    },
    {
      name: "selects every tag by an empty pattern",
      list: "r.io:\n  images-by-tag-regex:\n    a: ''\n    b:",
      entries: ["3 r.io/a: 1 2", "4 r.io/b: 1 2"],
    },
    {
      name: "rejects names that are not repositories",
      list: "r.io:\n  images:\n    A: ['1']\n    a:1: ['1']\n    b@c: ['1']\n    d/: ['1']",
      faults: ["A", "a:1", "b@c", "d/"].map(
        (name, index) =>
          `${3 + index} got "r.io/${name}"; expected REGISTRY/REPOSITORY in lower case, without a tag`,
      ),
    },
    {
      name: "reads registries with ports, paths and capitals",
      list: "localhost:5000: {images: {a: ['1']}}\n'[::1]:5000': {images: {a: ['1']}}\nquay.io/org: {images: {a: ['1']}}\nR.io: {images: {a: ['1']}}",
      entries: [
        "1 localhost:5000/a:1",
        "2 [::1]:5000/a:1",
        "3 quay.io/org/a:1",
        "4 R.io/a:1",
      ],
    },
    {
      name: "reads merge keys and aliases",
      list: "r.io: &r\n  images: {a: ['1']}\nq.io:\n  <<: *r\n  images-by-semver: {b: '2'}\nz.io:\n  <<: [*r]\n  images: {c: ['3']}",
      entries: ["2 r.io/a:1", "5 q.io/b: 2", "2 q.io/a:1", "8 z.io/c:3"],
    },
    {
      name: "notes registries without images and unknown keys",
      list: "r.io:\nq.io: {images: {}}\nz.io: {image: {a: []}, images: {b: ['1']}}",
      entries: ["3 z.io/b:1"],
      notes: [
        '1 no images for the registry "r.io"',
        '2 no images for the registry "q.io"',
        '3 skopeo ignores the key "image"; so does this list',
      ],
    },
    {
      name: "rejects values of another kind",
      list: "r.io:\n  images: [a]\n  images-by-semver: {b: ['1']}\nq.io: x\nz.io: {images: {c: '1', d: {e: f}}}",
      faults: [
        "2 got a list; expected one key per repository",
        '3 got a list for "r.io/b"; expected one text',
        '4 got "x" under the registry "q.io"; expected images, images-by-tag-regex, images-by-semver',
        '5 got "1" for "z.io/c"; expected a list of tags and digests, or [] for every tag',
        '5 got a mapping for "z.io/d"; expected a list of tags and digests, or [] for every tag',
      ],
    },
    {
      name: "rejects a second document, which skopeo does not read",
      list: "r.io: {images: {a: ['1']}}\n---\nq.io: {images: {a: ['1']}}",
      entries: ["1 r.io/a:1"],
      faults: ["3 got a second document; expected one per list"],
    },
  ];
  for (const { name, list, entries = [], faults = [], notes = [] } of CASES) {
    void it(name, () => {
      const outline = outlineList(list, { tags: ["1", "2"] });
      assert.deepEqual(outline, { entries, faults, notes });
    });
  }
});
