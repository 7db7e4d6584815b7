import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createFreshnessPolicy } from "../../../src/mirror/freshness.ts";
import {
  repositoryName,
  tagReference,
} from "../../support/upstream-harness.ts";

const HEX = "0123456789abcdef".repeat(4);
const MINUTE_MS = 60_000;

void describe("the life of a tag", () => {
  const policy = createFreshnessPolicy({
    tagTtlMs: 10 * MINUTE_MS,
    rules: [
      { match: "**:latest", ttlMs: MINUTE_MS },
      { match: "short/**", ttlMs: 1_000 },
      { match: "long/**", ttlMs: 60 * MINUTE_MS },
    ],
    staleIfGoneMs: 0,
    staleIfErrorMs: Infinity,
    staleWhileRevalidateMs: 0,
    notFoundTtlMs: 30_000,
  });
  for (const [repository, tag, want] of [
    ["a", "1", 10 * MINUTE_MS],
    ["a", "latest", MINUTE_MS],
    ["long/a", "1", 60 * MINUTE_MS],
    ["a", `sha256-${HEX}`, 30_000],
    ["a", `sha512-${HEX}`, 30_000],
    ["a", `sha256-${HEX}.sig`, 30_000],
    ["a", `sha256-${HEX}.att`, 30_000],
    ["long/a", `sha256-${HEX}.sbom`, 30_000],
    ["short/a", `sha256-${HEX}.sig`, 1_000],
    ["a", `sha256-${HEX}.1`, 10 * MINUTE_MS],
    ["a", `sha256-${HEX}0`, 10 * MINUTE_MS],
    ["a", `sha1-${HEX}`, 10 * MINUTE_MS],
    ["a", `x-sha256-${HEX}`, 10 * MINUTE_MS],
  ] as const) {
    void it(`is ${want} ms for ${repository}:${tag}`, () => {
      const reference = tagReference(tag);
      assert(reference.kind === "tag");
      assert.equal(
        policy.ttlMs(repositoryName(repository), reference.tag),
        want,
      );
    });
  }
});
