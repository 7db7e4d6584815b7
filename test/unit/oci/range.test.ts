import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  formatContentRange,
  formatUnsatisfiedRange,
  isAscending,
  parseRangeHeader,
  parseRegistryRange,
  resolveRange,
  resolveRanges,
} from "../../../src/oci/range.ts";

const MAX = Number.MAX_SAFE_INTEGER;

void describe("parseRangeHeader", () => {
  const single: readonly [header: string, want: unknown][] = [
    ["bytes=0-0", { kind: "between", first: 0, last: 0 }],
    ["bytes=5-9", { kind: "between", first: 5, last: 9 }],
    ["BYTES=5-9", { kind: "between", first: 5, last: 9 }],
    [" bytes=5-9 ", { kind: "between", first: 5, last: 9 }],
    ["bytes=007-9", { kind: "between", first: 7, last: 9 }],
    ["bytes=0-", { kind: "from", first: 0 }],
    ["bytes=12-", { kind: "from", first: 12 }],
    ["bytes=-7", { kind: "suffix", length: 7 }],
    ["bytes=-0", { kind: "suffix", length: 0 }],
    [`bytes=${"9".repeat(40)}-`, { kind: "from", first: MAX }],
    [`bytes=0-${"9".repeat(40)}`, { kind: "between", first: 0, last: MAX }],
  ];
  for (const [header, want] of single) {
    void it(`reads ${header}`, () => {
      assert.deepEqual(parseRangeHeader(header), [want]);
    });
  }

  void it("reads several ranges with white space and empty elements", () => {
    const want = [
      { kind: "between", first: 5, last: 9 },
      { kind: "from", first: 2 },
      { kind: "suffix", length: 3 },
    ];
    for (const header of [
      "bytes=5-9,2-,-3",
      "bytes= 5-9 ,\t2-,, , -3,",
      "Bytes=5-9, 2-, -3",
    ]) {
      assert.deepEqual(parseRangeHeader(header), want, header);
    }
    const most = Array.from({ length: 1_024 }, (_, at) => `${at}-${at}`);
    assert.equal(parseRangeHeader(`bytes=${most.join(",")}`)?.length, 1_024);
  });

  const ignored = [
    undefined,
    "",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=1",
    "bytes=9-5",
    `bytes=${"9".repeat(41)}-${"9".repeat(40)}`,
    "bytes=--5",
    "bytes=+1-2",
    "bytes=1-2-3",
    "bytes=1.0-2",
    "bytes=0x1-2",
    "bytes =1-2",
    "bytes:1-2",
    "items=0-5",
    "bytes=0-0,9-5",
    "bytes=0-0,a",
    "bytes=0-0,1- 2",
    "bytes=0-0;1-2",
    "bytes=,",
    "bytes=0-0, bytes=1-2",
    `bytes=${Array.from({ length: 1_025 }, (_, at) => `${at}-${at}`).join(",")}`,
    `bytes=${Array.from({ length: 10_000 }, (_, at) => `${at}-${at}`).join(",")}`,
    `bytes=${"0".repeat(65_536)}-`,
    "bytes=0-1\r\nX-Evil: 1",
    "bytes=\u0661-2",
  ];
  for (const header of ignored) {
    void it(`ignores ${JSON.stringify(header)?.slice(0, 50)}`, () => {
      assert.equal(parseRangeHeader(header), undefined);
    });
  }
});

void describe("resolveRange", () => {
  const cases: readonly [header: string, size: number, want: string][] = [
    ["bytes=0-0", 10, "bytes 0-0/10"],
    ["bytes=0-", 10, "bytes 0-9/10"],
    ["bytes=9-", 10, "bytes 9-9/10"],
    ["bytes=10-", 10, "bytes */10"],
    ["bytes=5-100", 10, "bytes 5-9/10"],
    ["bytes=10-100", 10, "bytes */10"],
    ["bytes=-3", 10, "bytes 7-9/10"],
    ["bytes=-10", 10, "bytes 0-9/10"],
    ["bytes=-100", 10, "bytes 0-9/10"],
    ["bytes=-0", 10, "bytes */10"],
    ["bytes=0-", 0, "bytes */0"],
    ["bytes=-5", 0, "bytes */0"],
    [`bytes=${"9".repeat(40)}-`, MAX, "bytes */9007199254740991"],
  ];
  for (const [header, size, want] of cases) {
    void it(`answers ${header.slice(0, 30)} of ${size} with ${want}`, () => {
      const [spec] = parseRangeHeader(header) ?? [];
      assert(spec !== undefined);
      const range = resolveRange(spec, size);
      const got =
        range === "unsatisfiable"
          ? formatUnsatisfiedRange(size)
          : formatContentRange(range, size);
      assert.equal(got, want);
    });
  }

  void it("selects exactly the bytes that the header names", () => {
    const offset = fc.nat({ max: 30 });
    const header = fc.oneof(
      fc.tuple(offset, offset).map(([a, b]) => `bytes=${a}-${b}`),
      offset.map((a) => `bytes=${a}-`),
      offset.map((n) => `bytes=-${n}`),
    );
    fc.assert(
      fc.property(header, fc.nat({ max: 20 }), (text, size) => {
        const [spec] = parseRangeHeader(text) ?? [];
        const [a = "", b = ""] = text.slice("bytes=".length).split("-");
        const isReversed = a !== "" && b !== "" && Number(b) < Number(a);
        assert.equal(spec === undefined, isReversed);
        if (spec === undefined) return;
        const all = Array.from({ length: size }, (_, at) => at);
        const wanted = all.filter((at) =>
          a === ""
            ? at >= size - Number(b)
            : at >= Number(a) && (b === "" || at <= Number(b)),
        );
        const range = resolveRange(spec, size);
        const got =
          range === "unsatisfiable"
            ? []
            : all.slice(range.first, range.last + 1);
        assert.deepEqual(got, wanted);
        if (range !== "unsatisfiable") {
          assert(0 <= range.first && range.first <= range.last);
          assert(range.last < size);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

void describe("resolveRanges", () => {
  const cases: readonly [string, string][] = [
    ["0-1,5-6", "0-1 5-6"],
    ["5-6,0-1", "5-6 0-1"],
    // They touch and do not overlap: clients count the parts.
    ["0-4,5-9", "0-4 5-9"],
    ["0-5,5-9", "0-9"],
    ["0-9,2-3", "0-9"],
    ["2-3,0-9", "0-9"],
    ["8-9,0-1,1-2", "8-9 0-2"],
    ["4-6,0-1,6-8", "4-8 0-1"],
    ["0-1,20-30,5-6", "0-1 5-6"],
    ["-3,0-1", "7-9 0-1"],
    ["0-1,8-", "0-1 8-9"],
    ["20-,-0", ""],
    ["0-,0-,0-", "0-9"],
  ];
  for (const [header, want] of cases) {
    void it(`makes ${want === "" ? "none" : want} of ${header}`, () => {
      const specs = parseRangeHeader(`bytes=${header}`);
      assert(specs !== undefined);
      const got = resolveRanges(specs, 10);
      assert.equal(
        got.map(({ first, last }) => `${first}-${last}`).join(" "),
        want,
      );
      assert.equal(
        isAscending(got),
        got.every(
          ({ first }, at) => at === 0 || first > (got[at - 1]?.last ?? 0),
        ),
      );
    });
  }

  void it("covers each requested byte exactly once", () => {
    const offset = fc.nat({ max: 30 });
    const ranges = fc.array(fc.tuple(offset, offset), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(ranges, fc.nat({ max: 25 }), (pairs, size) => {
        const specs = pairs.map(([a, b]) => ({
          kind: "between" as const,
          first: Math.min(a, b),
          last: Math.max(a, b),
        }));
        const all = Array.from({ length: size }, (_, at) => at);
        const got = resolveRanges(specs, size).flatMap(({ first, last }) =>
          all.slice(first, last + 1),
        );
        const wanted = all.filter((at) =>
          specs.some(({ first, last }) => first <= at && at <= last),
        );
        assert.deepEqual(
          got.toSorted((a, b) => a - b),
          wanted,
        );
      }),
      { numRuns: 2000 },
    );
  });
});

void describe("a range of hosted content", () => {
  for (const [header, want] of [
    [undefined, undefined],
    ["bytes=0-1", [{ kind: "between", first: 0, last: 1 }]],
    ["bytes=5-", [{ kind: "from", first: 5 }]],
    ["bytes=500-0", [{ kind: "suffix", length: 0 }]],
    [" Bytes=9-8 ", [{ kind: "suffix", length: 0 }]],
    ["bytes=500-0,1-2", undefined],
    ["lines=500-0", undefined],
    [`bytes=${"9".repeat(200)}-0`, undefined],
    ["bytes=a-0", undefined],
  ] as const) {
    void it(`of ${header?.slice(0, 20)} is ${JSON.stringify(want)}`, () => {
      assert.deepEqual(parseRegistryRange(header), want);
    });
  }
});
