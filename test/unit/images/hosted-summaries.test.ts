import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  HostedSummaries,
  type HostedSummariesParts,
} from "../../../src/images/hosted-summaries.ts";
import {
  parseRepositoryName,
  parseTag,
  type RepositoryName,
  type Tag,
} from "../../../src/oci/reference.ts";
import { IndexError } from "../../../src/storage/metadata-index.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { hostedConfig } from "../../support/hosted-config.ts";

/** An index with one repository, which counts the pages of tags that are read. */
class CountedIndex {
  pages = 0;
  tags: number;
  registries: () => Promise<readonly { registry: string; bytes: number }[]> =
    () => Promise.resolve([{ registry: "local", bytes: 7 }]);

  constructor(tags: number) {
    this.tags = tags;
  }

  listHostedRegistries(): ReturnType<CountedIndex["registries"]> {
    return this.registries();
  }

  listHostedRepositories(): Promise<readonly RepositoryName[]> {
    const name = parseRepositoryName("app");
    return Promise.resolve(name === undefined ? [] : [name]);
  }

  listTags(
    _key: unknown,
    limit: number,
    last: string | undefined,
  ): Promise<readonly Tag[]> {
    this.pages += 1;
    const from = last === undefined ? 0 : Number(last) + 1;
    const names = Array.from(
      { length: Math.min(limit, this.tags - from) },
      (_, at) => parseTag(String(from + at)),
    );
    return Promise.resolve(names.filter((name) => name !== undefined));
  }

  listUploads(): Promise<readonly []> {
    return Promise.resolve([]);
  }
}

function setUp(
  tags: number,
  parts: Partial<HostedSummariesParts> = {},
): {
  readonly index: CountedIndex;
  readonly clock: FakeClock;
  readonly summaries: HostedSummaries;
} {
  const index = new CountedIndex(tags);
  const clock = new FakeClock();
  const summaries = new HostedSummaries({
    index,
    registries: () => [hostedConfig()],
    reservedBytes: () => 0,
    clock,
    ...parts,
  });
  return { index, clock, summaries };
}

void describe("the summary of a hosted registry", () => {
  void it("counts few tags for each request, and many at most once a minute", async () => {
    for (const [tags, isKept] of [
      [10, false],
      [12_345, true],
    ] as const) {
      const { index, clock, summaries } = setUp(tags);
      assert.equal((await summaries.list())[0]?.tags, tags);
      const { pages } = index;
      index.tags = tags - 1;
      const [again] = await summaries.list();
      assert.equal(again?.tags, isKept ? tags : tags - 1);
      assert.equal(index.pages === pages, isKept);
      clock.advance(60_000);
      assert.equal((await summaries.list())[0]?.tags, tags - 1);
    }
  });

  void it("is the last known one while the index fails or does not answer", async () => {
    const { index, summaries } = setUp(3, { patienceMs: 1 });
    index.registries = () => new Promise(() => undefined);
    assert.deepEqual(await summaries.list(), []);
    const other = setUp(3);
    const known = await other.summaries.list();
    assert.equal(known.length, 1);
    other.index.registries = () =>
      Promise.reject(new IndexError("does not answer"));
    assert.deepEqual(await other.summaries.list(), known);
  });
});
