import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ContentLists } from "../../../../src/hosted/content/content-lists.ts";
import { digestOf, type Digest } from "../../../../src/oci/digest.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { parseManifest } from "../../../../src/oci/manifest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../../../src/oci/media-type.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../../src/oci/reference.ts";
import type { Referrer } from "../../../../src/oci/referrers.ts";

function keyOf(repository: string): RepositoryKey {
  return { upstream: "local", repository: repository as RepositoryName };
}

const KNOWN = ["a", "a-b", "a/b", "a0", "aa", "b.c", "z9"];
const TAGS = ["1.0", "A", "_x", "latest", "z"] as Tag[];
const SUBJECT = digestOf(Buffer.from("subject"));

function referrersOf(sizes: readonly number[]): readonly Referrer[] {
  return sizes
    .map((annotationBytes, at) => ({
      digest: digestOf(Buffer.from(`${at}`)),
      sizeBytes: 100 + at,
      mediaType: OCI_MANIFEST,
      artifactType: at % 2 === 0 ? "application/even" : "application/odd",
      annotations: { text: "x".repeat(annotationBytes) },
    }))
    .toSorted((one, other) => (one.digest < other.digest ? -1 : 1));
}

function open(
  referrers: readonly Referrer[],
  maxReferrersBytes?: number,
): ContentLists {
  return new ContentLists({
    ...(maxReferrersBytes === undefined ? {} : { maxReferrersBytes }),
    index: {
      listTags: ({ repository }, limit, last = "") =>
        Promise.resolve(
          repository === "aa"
            ? TAGS.filter((tag) => tag > last).slice(0, limit)
            : [],
        ),
      listHostedRepositories: (_registry, limit, last = "" as RepositoryName) =>
        Promise.resolve(
          KNOWN.filter((name) => name > last).slice(
            0,
            limit,
          ) as RepositoryName[],
        ),
      listHostedReferrers: (_key, _subject, page) =>
        Promise.resolve(
          referrers
            .filter(
              ({ digest }) => page.last === undefined || digest > page.last,
            )
            .filter(
              ({ artifactType = "" }) =>
                page.artifactTypes.length === 0 ||
                page.artifactTypes.includes(artifactType),
            )
            .slice(0, page.limit),
        ),
    },
  });
}

void describe("a page of hosted tags", () => {
  void it("has the wanted number of tags, and a next page if there are more", async () => {
    const lists = open([]);
    const key = keyOf("aa");
    const pages = [
      [{ n: undefined, last: undefined }, TAGS, undefined],
      [{ n: 2, last: undefined }, ["1.0", "A"], "A"],
      [{ n: 3, last: "A" }, ["_x", "latest", "z"], undefined],
      [{ n: 2, last: "between" }, ["latest", "z"], undefined],
      [{ n: 5, last: undefined }, TAGS, undefined],
      [{ n: 0, last: undefined }, [], undefined],
      [{ n: 2, last: "z" }, [], undefined],
    ] as const;
    for (const [page, entries, nextLast] of pages) {
      assert.deepEqual(await lists.tags(key, page), { entries, nextLast });
    }
  });

  void it("is empty for a repository whose manifests have no tag", async () => {
    for (const name of KNOWN) {
      const page = await open([]).tags(keyOf(name), {
        n: 0,
        last: undefined,
      });
      assert.deepEqual(page.entries, [], name);
    }
  });

  void it("is NAME_UNKNOWN for a repository without a manifest", async () => {
    for (const name of [
      "a1",
      "0",
      "b",
      "b.d",
      "a/a",
      "z",
      "zz",
      "a-a",
      "a/b0",
    ]) {
      await assert.rejects(
        open([]).tags(keyOf(name), { n: undefined, last: undefined }),
        (error) =>
          error instanceof RegistryError && error.code === "NAME_UNKNOWN",
        name,
      );
    }
  });
});

async function readAll(lists: ContentLists, types: readonly string[]) {
  const found: Digest[] = [];
  let last: Digest | undefined;
  let pages = 0;
  do {
    const page = await lists.referrers(keyOf("aa"), SUBJECT, types, last);
    assert.equal(page.isFiltered, types.length > 0);
    const parsed = parseManifest(page.bytes, undefined);
    assert.ok(parsed.ok);
    assert.equal(parsed.mediaType, OCI_INDEX);
    found.push(...parsed.children.map(({ digest }) => digest));
    pages++;
    last = page.nextLast;
  } while (last !== undefined);
  return { found, pages };
}

void describe("a repository of many tags", () => {
  const many = Array.from(
    { length: 25_000 },
    (_, at) => `t${String(at).padStart(6, "0")}` as Tag,
  );

  void it("is listed in steps, between which other work runs", async () => {
    const steps: number[] = [];
    const lists = new ContentLists({
      index: {
        listTags: (_key, limit, last = "") => {
          steps.push(limit);
          const at = many.findIndex((tag) => tag > last);
          return Promise.resolve(at === -1 ? [] : many.slice(at, at + limit));
        },
        listHostedRepositories: () => Promise.resolve([]),
        listHostedReferrers: () => Promise.resolve([]),
      },
    });
    const found: Tag[] = [];
    let last: string | undefined;
    let pages = 0;
    do {
      const page = await lists.tags(keyOf("many"), { n: undefined, last });
      found.push(...page.entries);
      last = page.nextLast;
      pages++;
    } while (last !== undefined);
    assert.equal(pages, 3);
    assert.deepEqual(found, many);
    assert.ok(Math.max(...steps) <= 1_000);
  });
});

void describe("the referrers of a hosted manifest", () => {
  void it("are an empty index if there are none", async () => {
    assert.deepEqual(await readAll(open([]), []), { found: [], pages: 1 });
  });

  void it("are all listed once, in pages within the bound", async () => {
    const referrers = referrersOf(Array.from({ length: 450 }, () => 200));
    const all = referrers.map(({ digest }) => digest);
    for (const [maxBytes, pages] of [
      [undefined, 1],
      [100_000, 2],
      [1_000, 226],
      [10, 451],
    ] as const) {
      const read = await readAll(open(referrers, maxBytes), []);
      assert.deepEqual(read.found, all);
      assert.ok(Math.abs(read.pages - pages) <= pages / 2, `${read.pages}`);
    }
  });

  void it("are filtered by artifact type", async () => {
    const referrers = referrersOf([1, 2, 3, 4, 5]);
    const odd = referrers.filter(
      ({ artifactType }) => artifactType === "application/odd",
    );
    const { found } = await readAll(open(referrers), [
      "application/odd",
      "x/y",
    ]);
    assert.deepEqual(
      found,
      odd.map(({ digest }) => digest),
    );
  });

  void it("keep a descriptor that is larger than a page", async () => {
    const referrers = referrersOf([10, 5_000, 10]);
    const { found } = await readAll(open(referrers, 1_000), []);
    assert.equal(found.length, 3);
  });
});
