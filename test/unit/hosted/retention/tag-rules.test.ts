import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HostedRetentionConfig } from "../../../../src/config/config.ts";
import { TagRules } from "../../../../src/hosted/retention/tag-rules.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import { parseRepositoryName } from "../../../../src/oci/reference.ts";
import type { HostedTag } from "../../../../src/storage/hosted-index.ts";
import { tag } from "../../../contract/metadata-index-contract.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";

const DAY_MS = 86_400_000;
const NOW_MS = 1_000 * DAY_MS;

type Rule = HostedRetentionConfig["rules"][number];

const rule = (over: Partial<Rule>): Rule => ({
  match: "**",
  keepNewest: undefined,
  keepPulledWithinMs: undefined,
  keepTags: [],
  ...over,
});

/** A tag with the age of its push and of its last pull, in days. */
function row(name: string, pushed: number, pulled = pushed): HostedTag {
  return {
    tag: tag(name),
    digest: digestOf(Buffer.from(name)),
    pushedAtMs: NOW_MS - pushed * DAY_MS,
    pulledAtMs: NOW_MS - pulled * DAY_MS,
  };
}

function deletedOf(
  rules: readonly Rule[],
  rows: readonly HostedTag[],
  { repository = "ci/app", immutableTags = [] as readonly string[] } = {},
): readonly string[] {
  const name = parseRepositoryName(repository);
  assert.ok(name);
  const found = new TagRules(
    hostedConfig({
      immutableTags,
      retention: { schedule: "0 3 * * *", rules, untaggedMs: Infinity },
    }),
  ).forRepository(name);
  for (const one of rows) found?.count(one);
  return rows
    .filter((one) => found?.judge(one, NOW_MS) !== undefined)
    .map((one) => one.tag);
}

const ROWS = [
  row("v1", 400),
  row("b1", 300),
  row("b2", 200, 5),
  row("b3", 100),
  row("b4", 50),
];

void describe("a tag", () => {
  const cases: readonly {
    readonly name: string;
    readonly rules: readonly Rule[];
    readonly repository?: string;
    readonly immutableTags?: readonly string[];
    readonly want: readonly string[];
  }[] = [
    {
      name: "that no rule matches is kept",
      rules: [rule({ match: "ci/**:v*", keepTags: ["none"] })],
      want: ["v1"],
    },
    {
      name: "of a repository that no rule matches is kept",
      rules: [rule({ match: "ci/**", keepNewest: 0 })],
      repository: "team/app",
      want: [],
    },
    {
      name: "is kept if it is among the newest by push",
      rules: [rule({ keepNewest: 2 })],
      want: ["v1", "b1", "b2"],
    },
    {
      name: "is kept if it was pulled lately",
      rules: [rule({ keepNewest: 1, keepPulledWithinMs: 30 * DAY_MS })],
      want: ["v1", "b1", "b3"],
    },
    {
      name: "that was pushed lately counts as pulled then",
      rules: [rule({ keepPulledWithinMs: 100 * DAY_MS })],
      want: ["v1", "b1"],
    },
    {
      name: "is kept if its name matches",
      rules: [rule({ keepNewest: 1, keepTags: ["v*", "b1"] })],
      want: ["b2", "b3"],
    },
    {
      name: "is kept if it is immutable",
      rules: [rule({ keepNewest: 1 })],
      immutableTags: ["ci/*:v*", "other/**"],
      want: ["b1", "b2", "b3"],
    },
    {
      name: "goes by the first rule that matches it, which counts only its own tags",
      rules: [
        rule({ match: "ci/**:v*", keepNewest: 1 }),
        rule({ match: "ci/*", keepNewest: 1 }),
        rule({ match: "**", keepNewest: 100 }),
      ],
      want: ["b1", "b2", "b3"],
    },
    {
      name: "is deleted if its rule keeps nothing",
      rules: [rule({ keepNewest: 0 })],
      want: ["v1", "b1", "b2", "b3", "b4"],
    },
  ];
  for (const { name, rules, want, ...over } of cases) {
    void it(name, () => {
      assert.deepEqual(deletedOf(rules, ROWS, over), want);
    });
  }

  void it("is among the newest by name if the times are equal", () => {
    const rows = ["c", "a", "b"].map((name) => row(name, 1));
    assert.deepEqual(deletedOf([rule({ keepNewest: 2 })], rows), ["a"]);
  });

  void it("is among the newest of thousands in any order", () => {
    const rows = Array.from({ length: 5_000 }, (_, number) =>
      row(`t${number}`, (number * 7_919) % 5_000),
    );
    const deleted = new Set(deletedOf([rule({ keepNewest: 100 })], rows));
    assert.deepEqual(
      rows.filter((one) => !deleted.has(one.tag)).map((one) => one.pushedAtMs),
      rows
        .map((one) => one.pushedAtMs)
        .filter((atMs) => atMs > NOW_MS - 100 * DAY_MS),
    );
  });

  void it("is deleted with the reason", () => {
    const name = parseRepositoryName("ci/app");
    assert.ok(name);
    const rules = new TagRules(
      hostedConfig({
        retention: {
          schedule: "0 3 * * *",
          rules: [
            rule({
              match: "ci/**",
              keepNewest: 0,
              keepPulledWithinMs: 30 * DAY_MS,
              keepTags: ["v*"],
            }),
          ],
          untaggedMs: Infinity,
        },
      }),
    );
    assert.deepEqual(rules.forRepository(name)?.judge(row("b1", 300), NOW_MS), {
      reason:
        "ci/**: not among the newest 0; not pulled within 30d; matches none of v*",
      isTimed: true,
    });
  });
});
