import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import {
  DURATION_PATTERN,
  formatDuration,
  formatAmount,
  parseAmount,
  parseDuration,
  parseSize,
} from "../../../../src/config/schema/units.ts";

void test("reads sizes in binary and decimal units", () => {
  const table: [string | number, number][] = [
    [0, 0],
    ["0", 0],
    ["1234B", 1234],
    ["7B", 7],
    ["1kB", 1_000],
    ["1KB", 1_000],
    ["500MB", 500_000_000],
    ["1GB", 1_000_000_000],
    ["2TB", 2_000_000_000_000],
    ["1KiB", 1_024],
    ["64MiB", 67_108_864],
    ["10GiB", 10_737_418_240],
    ["1.5GiB", 1_610_612_736],
    ["1TiB", 1_099_511_627_776],
    ["9007199254740991B", Number.MAX_SAFE_INTEGER],
  ];
  for (const [input, want] of table) {
    assert.equal(parseSize(input), want, String(input));
  }
});

void test("rejects invalid sizes", () => {
  const table = [
    "",
    "GiB",
    "-1",
    "+1",
    // Without a unit: the operator may mean gibibytes.
    "10",
    "1.0",
    "00",
    10,
    "1 GiB",
    "1gib",
    "1Gb",
    "1e3",
    "0x10",
    "0.5",
    "1.0001KiB",
    ".5GiB",
    "5.GiB",
    "80%",
    "9007199254740992B",
    "9".repeat(400),
    "1GiB\n",
    "١GiB",
    Number.NaN,
    Infinity,
    -1,
    1.5,
  ];
  for (const input of table) {
    assert.equal(parseSize(input), undefined, String(input));
  }
});

void test("reads durations", () => {
  const table: [string, number][] = [
    ["0s", 0],
    ["500ms", 500],
    ["30s", 30_000],
    ["1.5s", 1_500],
    ["10m", 600_000],
    ["24h", 86_400_000],
    ["1.1d", 95_040_000],
    ["90d", 7_776_000_000],
    ["forever", Infinity],
  ];
  for (const [input, want] of table) {
    assert.equal(parseDuration(input), want, input);
  }
});

void test("rejects invalid durations", () => {
  const table = [
    "",
    "0",
    "30",
    "s",
    "-1s",
    "1 s",
    "1S",
    "1h30m",
    "0.5ms",
    "1w",
    "never",
    "Forever",
    "Infinity",
    "1e3s",
    "99999999999999d",
    "1s\n",
  ];
  for (const input of table) {
    assert.equal(parseDuration(input), undefined, input);
  }
});

void test("formats every duration as a text that parses to the same value", () => {
  const durations = fc.oneof(
    fc.maxSafeNat(),
    fc.nat({ max: 100_000 }).map((seconds) => seconds * 1_000),
    fc.nat({ max: 10_000 }).map((hours) => hours * 3_600_000),
    fc.constant(Infinity),
  );
  fc.assert(
    fc.property(durations, (durationMs) => {
      const text = formatDuration(durationMs);
      assert.equal(parseDuration(text), durationMs);
      assert.match(text, new RegExp(DURATION_PATTERN));
    }),
  );
});

void test("parses an amount, and formats it as a text that parses to the same value", () => {
  const table: readonly (readonly [string, ReturnType<typeof parseAmount>])[] =
    [
      ["80%", { share: 0.8 }],
      ["2.5%", { share: 0.025 }],
      ["100%", { share: 1 }],
      ["101%", undefined],
      ["-1%", undefined],
      ["%", undefined],
      ["10GiB", { bytes: 10 * 1024 ** 3 }],
      ["0B", { bytes: 0 }],
      ["1000B", { bytes: 1000 }],
      ["10", undefined],
      ["1000", undefined],
    ];
  for (const [input, want] of table) {
    assert.deepEqual(parseAmount(input), want, input);
    if (want !== undefined) assert.equal(formatAmount(want), input);
  }
  fc.assert(
    fc.property(fc.maxSafeNat(), (bytes) => {
      assert.deepEqual(parseAmount(formatAmount({ bytes })), { bytes });
    }),
  );
});

void test("parses any text to a whole number or undefined, and the published pattern accepts every duration", () => {
  const texts = fc.oneof(
    fc.string(),
    fc
      .tuple(
        fc.stringMatching(/^\d{0,20}\.?\d{0,4}$/),
        fc.constantFrom("", "B", "KiB", "GB", "TiB", "ms", "s", "h", "d", "x"),
      )
      .map(([digits, unit]) => digits + unit),
  );
  fc.assert(
    fc.property(texts, (text) => {
      for (const quantity of [parseSize(text), parseDuration(text)]) {
        assert.ok(
          quantity === undefined ||
            quantity === Infinity ||
            (Number.isSafeInteger(quantity) && quantity >= 0),
        );
      }
      if (parseDuration(text) !== undefined) {
        assert.match(text, new RegExp(DURATION_PATTERN));
      }
    }),
  );
});
