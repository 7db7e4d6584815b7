import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  UpstreamError,
  type UpstreamErrorKind,
} from "../../../src/wire/errors.ts";
import { ResourceRests } from "../../../src/upstream/resource-rests.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function setUp(): {
  clock: FakeClock;
  rests: ResourceRests;
  fail: (kind: UpstreamErrorKind, retryAfterMs?: number) => void;
} {
  const clock = new FakeClock();
  const rests = new ResourceRests(clock);
  const fail = (kind: UpstreamErrorKind, retryAfterMs?: number): void =>
    rests.noteFailure(
      "a",
      new UpstreamError(kind, "", {
        upstream: "u",
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      }),
    );
  return { clock, rests, fail };
}

void describe("a resource that failed", () => {
  void it("rests for its Retry-After without other resources", () => {
    const { clock, rests, fail } = setUp();
    fail("unavailable", 120_000);
    assert.deepEqual(rests.get("a"), {
      retryAfterMs: 120_000,
      isThrottled: false,
    });
    assert.equal(rests.get("b"), undefined);
    clock.advance(120_000);
    assert.equal(rests.get("a"), undefined);
  });

  void it("with a 429 is throttled, for 30 s without Retry-After", () => {
    const { rests, fail } = setUp();
    fail("rate-limited");
    assert.deepEqual(rests.get("a"), {
      retryAfterMs: 30_000,
      isThrottled: true,
    });
  });

  void it("with a time-out rests immediately, with a 5xx after three in a row, each time for longer", () => {
    const { clock, rests, fail } = setUp();
    fail("timeout");
    assert.equal(rests.get("a")?.retryAfterMs, 5_000);
    clock.advance(5_000);
    fail("unavailable");
    assert.equal(rests.get("a"), undefined);
    fail("unavailable");
    assert.equal(rests.get("a")?.retryAfterMs, 10_000);
    for (let round = 0; round < 10; round++) fail("unavailable");
    assert.equal(rests.get("a")?.retryAfterMs, 300_000);
    rests.noteSuccess("a");
    assert.equal(rests.get("a"), undefined);
    fail("unavailable");
    assert.equal(rests.get("a"), undefined);
  });

  void it("is forgotten after a thousand others have failed", () => {
    const { rests, fail } = setUp();
    fail("timeout");
    assert.notEqual(rests.get("a"), undefined);
    for (let other = 0; other < 1_000; other++) {
      rests.noteFailure(
        `other ${other}`,
        new UpstreamError("timeout", "", { upstream: "u" }),
      );
    }
    assert.equal(rests.get("a"), undefined);
  });
});
