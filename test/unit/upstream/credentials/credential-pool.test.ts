import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  CredentialPool,
  PoolMember,
} from "../../../../src/upstream/credentials/credential-pool.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const HOUR_MS = 3_600_000;

function observe(member: PoolMember, remaining: string, source?: string): void {
  const headers: Readonly<Record<string, string | undefined>> = {
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": remaining,
    "docker-ratelimit-source": source,
  };
  member.observe((name) => headers[name]);
}

function sourceOf(member: PoolMember): string | undefined {
  return member.budget?.source;
}

void describe("an account's budget", () => {
  void it("is kept for each source, the smallest counts, and each expires by itself", () => {
    const clock = new FakeClock();
    const member = new PoolMember("anonymous", undefined, clock);
    observe(member, "5;w=3600", "203.0.113.7");
    observe(member, "90;w=21600", "2001:db8::");
    assert.equal(member.budget?.source, "203.0.113.7");
    assert.equal(member.budget?.remaining, 5);
    assert.equal(
      member.state.budget?.resetsAtMs,
      Date.UTC(2026, 0, 1) + HOUR_MS,
    );
    clock.advance(HOUR_MS);
    assert.equal(member.budget?.source, "2001:db8::");
    assert.equal(member.budget?.remaining, 90);
    clock.advance(5 * HOUR_MS);
    assert.equal(member.budget, undefined);
    assert.equal(member.state.budget, undefined);
  });

  void it("is the latest of each source, renewed by every answer", () => {
    const clock = new FakeClock();
    const member = new PoolMember("anonymous", undefined, clock);
    for (const remaining of ["90;w=60", "12;w=60", "40;w=60"]) {
      clock.advance(59_000);
      observe(member, remaining);
    }
    assert.equal(member.budget?.remaining, 40);
    observe(member, "garbage");
    assert.equal(member.budget?.remaining, 40);
  });

  void it("is kept for at most eight sources with printable names", () => {
    const clock = new FakeClock();
    const member = new PoolMember("anonymous", undefined, clock);
    for (let number = 1; number <= 9; number++) {
      observe(member, `${number};w=60`, `source-${number}`);
    }
    assert.equal(member.budget?.remaining, 2);
    observe(member, "1;w=60", "a\u0000b c");
    assert.equal(sourceOf(member), undefined);
    observe(member, "0;w=60", "x".repeat(500));
    assert.equal(sourceOf(member)?.length, 128);
  });
});

void describe("outstanding pulls", () => {
  void it("are deducted from the budget until they are answered", () => {
    const member = new PoolMember("anonymous", undefined, new FakeClock());
    observe(member, "12;w=21600");
    const ends = [member.beginPull(), member.beginPull()];
    assert.equal(member.budgetLeft?.remaining, 10);
    assert.equal(member.budget?.remaining, 12);
    for (const end of ends) end();
    assert.equal(member.budgetLeft?.remaining, 12);
  });
});

void describe("a pool of accounts", () => {
  const pool = new CredentialPool({
    upstream: "registry.test",
    endpoint: new URL("https://registry.test"),
    credentials: [{ helper: "a" }, { helper: "b" }, { helper: "c" }],
    clock: new FakeClock(),
  });
  const members: PoolMember[] = [];
  for (let left = 3; left > 0; left--) {
    const member = pool.choose("manifest", new Set(members));
    assert.ok(member);
    members.push(member);
  }
  const [a, b, c] = members as [PoolMember, PoolMember, PoolMember];

  void it("starts in order, then uses accounts without a known budget, then the one with most left", () => {
    assert.deepEqual([a.name, b.name, c.name], ["a", "b", "c"]);
    observe(a, "50");
    assert.equal(pool.choose("manifest"), b);
    observe(b, "70");
    assert.equal(pool.choose("manifest"), c);
    observe(c, "60");
    assert.equal(pool.choose("manifest"), b);
    observe(b, "9");
    assert.equal(pool.choose("manifest"), c);
    assert.equal(pool.isSpared, false);
    assert.equal(pool.isHalfUsed, false);
    observe(b, "49");
    observe(c, "49");
    observe(a, "49");
    assert.equal(pool.isHalfUsed, true);
    observe(a, "50");
    observe(b, "9");
    observe(c, "60");
    assert.equal(pool.isHalfUsed, false);
  });

  void it("skips accounts that rest or were refused, for one kind of request only", () => {
    c.throttle("manifest", "r", 60_000);
    assert.equal(pool.choose("manifest"), a);
    assert.equal(pool.choose("blob"), c);
    a.refuse();
    assert.equal(pool.choose("manifest"), b);
    assert.equal(pool.restMs("manifest"), 0);
    b.throttle("manifest", "r", 30_000);
    // A refused account is better than none.
    assert.equal(pool.choose("manifest"), a);
    a.throttle("manifest", "r", 40_000);
    assert.equal(pool.choose("manifest"), undefined);
    assert.equal(pool.restMs("manifest"), 30_000);
    assert.equal(pool.restMs("blob"), 0);
  });
});
