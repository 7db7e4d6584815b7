import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  type Budget,
  isHalfUsed,
  isSpared,
  readBudget,
} from "../../../../src/upstream/credentials/budget.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const HOUR_MS = 3_600_000;
const EPOCH_IN_A_MINUTE = String(NOW_MS / 1_000 + 60);

type Headers = Readonly<Record<string, string>>;

function read(headers: Headers): Budget | undefined {
  return readBudget((name) => headers[name], NOW_MS);
}

const CASES: readonly {
  readonly name: string;
  readonly headers: Headers;
  readonly want:
    | readonly [limit: number | undefined, remaining: number, windowMs: number]
    | undefined;
}[] = [
  {
    name: "Docker Hub's",
    headers: {
      "ratelimit-limit": "100;w=21600",
      "ratelimit-remaining": "76;w=21600",
    },
    want: [100, 76, 6 * HOUR_MS],
  },
  {
    name: "no window",
    headers: { "ratelimit-limit": "100", "ratelimit-remaining": "20" },
    want: [100, 20, HOUR_MS],
  },
  {
    name: "a window in one of both headers",
    headers: { "ratelimit-limit": "100;w=60", "ratelimit-remaining": "20" },
    want: [100, 20, 60_000],
  },
  {
    name: "blanks and comments",
    headers: {
      "ratelimit-limit": ' 100 ; comment="x=1" ; W = 3600',
      "ratelimit-remaining": " 9;w=3600 ",
    },
    want: [100, 9, HOUR_MS],
  },
  {
    name: "several windows, of which the one nearest to its end counts",
    headers: {
      "ratelimit-limit": "10, 10;w=1, 50;w=60, 1000;w=3600",
      "ratelimit-remaining": "9;w=1, 5;w=60, 900;w=3600",
    },
    want: [50, 5, 60_000],
  },
  {
    name: "a policy beside the limit",
    headers: {
      "ratelimit-policy": "100;w=60",
      "ratelimit-remaining": "5",
      "ratelimit-reset": "30",
    },
    want: [100, 5, 30_000],
  },
  {
    name: "GitLab's, whose reset is a time",
    headers: {
      "ratelimit-limit": "600",
      "ratelimit-remaining": "599",
      "ratelimit-reset": EPOCH_IN_A_MINUTE,
    },
    want: [600, 599, 60_000],
  },
  {
    name: "one header of an older draft",
    headers: { ratelimit: "limit=100, remaining=50, reset=5" },
    want: [100, 50, 5_000],
  },
  {
    name: "one header of a newer draft with its policy",
    headers: {
      ratelimit: '"default";r=50;t=30',
      "ratelimit-policy": '"default";q=200;w=60',
    },
    want: [200, 50, 30_000],
  },
  {
    name: "a remaining count without a limit",
    headers: { "ratelimit-remaining": "3" },
    want: [undefined, 3, HOUR_MS],
  },
  {
    name: "more remaining than the limit",
    headers: { "ratelimit-limit": "100", "ratelimit-remaining": "900" },
    want: [100, 100, HOUR_MS],
  },
  {
    name: "a window of zero, and one of centuries",
    headers: {
      "ratelimit-limit": "100;w=0",
      "ratelimit-remaining": "1;w=0",
    },
    want: [100, 1, HOUR_MS],
  },
  {
    name: "a window of centuries",
    headers: {
      "ratelimit-limit": "100;w=99999999999",
      "ratelimit-remaining": "1;w=99999999999",
    },
    want: [100, 1, 24 * HOUR_MS],
  },
  { name: "nothing", headers: {}, want: undefined },
  {
    name: "only a limit",
    headers: { "ratelimit-limit": "100" },
    want: undefined,
  },
  ...[
    "",
    "many",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    "NaN",
    ";w=60",
    ",,,",
    "9".repeat(99),
  ].map((text) => ({
    name: `garbage ${JSON.stringify(text.slice(0, 10))}`,
    headers: { "ratelimit-limit": "100", "ratelimit-remaining": text },
    want: undefined,
  })),
];

void describe("readBudget", () => {
  for (const { name, headers, want } of CASES) {
    void it(`reads ${name}`, () => {
      const budget = read(headers);
      assert.deepEqual(
        budget && [budget.limit, budget.remaining, budget.windowMs],
        want,
      );
    });
  }

  void it("returns numbers within their bounds or undefined for any headers", () => {
    const header = fc.option(
      fc.oneof(
        fc.string({ maxLength: 60 }),
        fc.stringMatching(/^[0-9;w=, rqt"]{0,40}$/),
      ),
      { nil: undefined },
    );
    const names = [
      "ratelimit",
      "ratelimit-limit",
      "ratelimit-remaining",
      "ratelimit-reset",
      "ratelimit-policy",
    ] as const;
    fc.assert(
      fc.property(fc.tuple(header, header, header, header, header), (texts) => {
        const budget = readBudget(
          (name) => texts[names.findIndex((one) => one === name)],
          NOW_MS,
        );
        if (budget === undefined) return;
        assert.ok(Number.isSafeInteger(budget.remaining));
        assert.ok(budget.remaining >= 0);
        assert.ok(budget.remaining <= (budget.limit ?? Infinity));
        assert.ok(budget.windowMs > 0 && budget.windowMs <= 24 * HOUR_MS);
      }),
    );
  });
});

void describe("isSpared", () => {
  const TABLE = [
    [100, 11, false],
    [100, 10, true],
    [100, 0, true],
    [0, 0, true],
    [undefined, 1, false],
    [undefined, 0, true],
    [5, 1, false],
    [5, 0, true],
  ] as const;
  for (const [limit, remaining, want] of TABLE) {
    void it(`is ${want} with ${remaining} of ${limit}`, () => {
      assert.equal(isSpared({ limit, remaining, windowMs: 1 }), want);
    });
  }
});

void describe("isHalfUsed", () => {
  const TABLE = [
    [100, 50, false],
    [100, 49, true],
    [0, 0, true],
    [undefined, 1, false],
    [undefined, 0, true],
  ] as const;
  for (const [limit, remaining, want] of TABLE) {
    void it(`is ${want} with ${remaining} of ${limit}`, () => {
      assert.equal(isHalfUsed({ limit, remaining, windowMs: 1 }), want);
    });
  }
});
