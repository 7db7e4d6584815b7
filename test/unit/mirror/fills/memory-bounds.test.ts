import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FailureLimit } from "../../../../src/http/client-auth/failure-limits.ts";
import { FailedHeads } from "../../../../src/mirror/manifests/failed-heads.ts";
import { FillBans } from "../../../../src/mirror/fills/fill-bans.ts";
import type { MirroredUpstream } from "../../../../src/mirror/mirrored-upstream.ts";
import { SparedTags } from "../../../../src/mirror/manifests/spared-tags.ts";
import { UpstreamError } from "../../../../src/wire/errors.ts";
import { ResourceRests } from "../../../../src/upstream/resource-rests.ts";
import {
  keyOf,
  named,
  tag,
} from "../../../contract/metadata-index-contract.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import type { RepositoryKey } from "../../../../src/oci/reference.ts";

const UPSTREAM = {
  client: { isBudgetSpared: () => true },
  freshness: { notFoundTtlMs: 60_000 },
} as unknown as MirroredUpstream;
const V = tag("v");

function key(at: number): RepositoryKey {
  return keyOf("registry.example", `name-${at}`);
}

/** A memory that is filled with names chosen by a client. */
interface Memory {
  readonly max: number;
  readonly add: (at: number) => void;
  readonly has: (at: number) => boolean;
}

function memories(): Record<string, Memory> {
  const clock = new FakeClock();
  const bans = new FillBans(clock);
  const spared = new SparedTags(clock);
  const heads = new FailedHeads(clock);
  const rests = new ResourceRests(clock);
  const failures = new FailureLimit(1, clock);
  const limited = new UpstreamError("rate-limited", "429", {
    upstream: "registry.example",
    retryAfterMs: 60_000,
  });
  return {
    "bans of digests": {
      max: 1_000,
      add: (at) => bans.add("registry.example", named(`${at}`), new Set()),
      has: (at) => bans.isBanned("registry.example", named(`${at}`)),
    },
    "tags that are spared": {
      max: 10_000,
      add: (at) => spared.add(key(at), V, 60_000),
      has: (at) => spared.has(UPSTREAM, key(at), V),
    },
    "tags whose HEAD failed": {
      max: 10_000,
      add: (at) =>
        heads.note(UPSTREAM, key(at), V, { kind: "failed", error: undefined }),
      has: (at) => heads.get(key(at), V) !== undefined,
    },
    "resources that rest": {
      max: 1_000,
      add: (at) => rests.noteFailure(`${at}`, limited),
      has: (at) => rests.get(`${at}`) !== undefined,
    },
    "sources of failed log-ins": {
      max: 10_000,
      add: (at) => void failures.take(`${at}`),
      has: (at) => failures.take(`${at}`) > 0,
    },
  };
}

void describe("a memory for names that clients choose", () => {
  for (const [name, { max, add, has }] of Object.entries(memories())) {
    void it(`is bounded: ${name}`, () => {
      for (let at = 0; at < max + 10; at += 1) add(at);
      assert.equal(has(max + 9), true);
      // The names that were added first; a look-up may itself add one.
      assert.equal(has(0), false);
    });
  }
});
