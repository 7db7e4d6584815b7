import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MirroredUpstream } from "../../../src/mirror/mirrored-upstream.ts";
import { NegativeAnswers } from "../../../src/mirror/negative-answers.ts";
import type { RepositoryName } from "../../../src/oci/reference.ts";
import { FakeClock } from "../../support/fake-clock.ts";

const MAX = 10_000;

function keyOf(i: number) {
  return { upstream: "a.example", repository: `r${i}` as RepositoryName };
}

/** The used part of a negative answer. */
function upstreamThatForgetsAfter(notFoundTtlMs: number): MirroredUpstream {
  return {
    freshness: { notFoundTtlMs },
    client: { hasCredentials: false },
  } as MirroredUpstream;
}

void describe("a remembered negative answer", () => {
  const upstream = upstreamThatForgetsAfter(30_000);

  void it("is kept for the ten thousand names requested last (R2)", () => {
    const negative = new NegativeAnswers(new FakeClock());
    for (let i = 0; i < 3 * MAX; i++) {
      negative.noteAbsent(upstream, keyOf(i), "v");
    }
    const held = Array.from({ length: 3 * MAX }, (_, i) =>
      negative.isAbsent(upstream, keyOf(i), "v"),
    );
    assert.equal(held.filter(Boolean).length, MAX);
    assert.equal(held.indexOf(true), 2 * MAX);
  });

  void it("expires after its time to live, and applies to its name only", () => {
    const clock = new FakeClock();
    const negative = new NegativeAnswers(clock);
    negative.noteAbsent(upstream, keyOf(1), "v");
    assert.ok(negative.isAbsent(upstream, keyOf(1), "v"));
    assert.ok(!negative.isAbsent(upstream, keyOf(1), "w"));
    assert.ok(!negative.isAbsent(upstream, keyOf(2), "v"));
    clock.advance(30_000);
    assert.ok(!negative.isAbsent(upstream, keyOf(1), "v"));
    negative.noteAbsent(upstreamThatForgetsAfter(0), keyOf(1), "v");
    assert.ok(!negative.isAbsent(upstream, keyOf(1), "v"));
  });
});
