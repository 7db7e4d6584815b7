import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  findRetryAfter,
  MAX_UPSTREAM_RETRY_AFTER_MS,
  parseRetryAfter,
} from "../../../src/wire/retry-after.ts";

const NOW_MS = Date.UTC(2026, 0, 1, 12, 0, 0);

const CASES: readonly (readonly [string, number | undefined])[] = [
  ["0", 0],
  ["60", 60_000],
  [" 1.5 ", 1_500],
  ["99999999999", MAX_UPSTREAM_RETRY_AFTER_MS],
  ["Thu, 01 Jan 2026 12:00:30 GMT", 30_000],
  ["Thu, 01 Jan 2026 11:00:00 GMT", 0],
  ["Fri, 01 Jan 2027 12:00:00 GMT", MAX_UPSTREAM_RETRY_AFTER_MS],
  ["Fri, 99 Foo 2027 12:00:00 GMT", undefined],
  ["1.16ms, allowed: 44000/minute", 1.16],
  ["250 ms", 250],
  ["2s", 2_000],
  ["-5", undefined],
  ["soon", undefined],
  ["banana 5", undefined],
  ["1e3", undefined],
  ["5 parsecs", undefined],
  ["", undefined],
];

void describe("parseRetryAfter", () => {
  for (const [text, want] of CASES) {
    void it(`reads ${JSON.stringify(text)} as ${want} ms`, () => {
      assert.equal(parseRetryAfter(text, NOW_MS), want);
    });
  }

  void it("returns a number within its bounds or undefined for any text", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const ms = parseRetryAfter(text, NOW_MS) ?? 0;
        assert.ok(ms >= 0 && ms <= MAX_UPSTREAM_RETRY_AFTER_MS);
      }),
    );
  });
});

void describe("findRetryAfter", () => {
  void it("finds the pause in ghcr.io's error message", () => {
    const body =
      '{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 821.5µs, allowed: 44000/minute"}]}';
    assert.equal(findRetryAfter(body, NOW_MS), 0.8215);
    assert.equal(findRetryAfter("Too Many Requests", NOW_MS), undefined);
  });
});
