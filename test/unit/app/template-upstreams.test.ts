import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { UpstreamConfig } from "../../../src/config/config.ts";
import { UpstreamError } from "../../../src/wire/errors.ts";
import type { UpstreamClient } from "../../../src/upstream/client.ts";
import { UpstreamSet } from "../../../src/app/upstream-set.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

const TEMPLATE: UpstreamConfig = {
  ...UPSTREAM_DEFAULTS,
  name: "*",
  endpoints: [],
};

/** Creates a set of upstreams whose registries answer when the test calls `answer`. */
function setUp() {
  const schedule = new ManualSchedule();
  const answers = new Map<string, () => void>();
  const closed: string[] = [];
  const busy = new Set<string>();
  let made = 0;
  const set: UpstreamSet = new UpstreamSet({
    upstreams: [],
    templates: [TEMPLATE],
    createClient: ({ name }, onAnswered) => {
      made += 1;
      answers.set(name, onAnswered);
      const client: Partial<UpstreamClient> = {
        name,
        isIdle: () => !busy.has(name),
        retire: () => {},
        close: () => Promise.resolve(void closed.push(name)),
      };
      return client as UpstreamClient;
    },
    onRetired: () => {},
    schedule: schedule.start,
  });
  /** Runs the scheduled work, but not the work that it schedules in turn. */
  const look = () => {
    for (let left = schedule.delaysMs.length; left > 0; left--) {
      schedule.runNext();
    }
  };
  const names = () => set.mirrored.map(({ name }) => name);
  const use = (name: string) => set.templated.find(name);
  const answer = (name: string) => answers.get(name)?.();
  return {
    set,
    look,
    names,
    use,
    answer,
    closed,
    busy,
    made: () => made,
  };
}

function isBusy(error: unknown): boolean {
  return error instanceof UpstreamError && error.kind === "breaker-open";
}

void describe("upstreams from templates", () => {
  void it("are created once per name, and listed after their registry has answered", () => {
    const { use, answer, names, made } = setUp();
    const first = use("a.example");
    assert.equal(use("a.example"), first);
    assert.deepEqual(names(), []);
    answer("a.example");
    answer("a.example");
    assert.deepEqual(names(), ["a.example"]);
    assert.equal(use("a.example"), first);
    assert.equal(made(), 1);
  });

  void it("are limited to a hundred; a new one replaces the least recently used", () => {
    const { use, answer, names } = setUp();
    for (let i = 0; i < 100; i++) {
      use(`r${i}.example`);
      answer(`r${i}.example`);
    }
    use("r0.example");
    for (let i = 0; i < 3; i++) {
      use(`new${i}.example`);
      assert.equal(names().length, 100);
      answer(`new${i}.example`);
    }
    assert.equal(names().length, 100);
    assert.ok(names().includes("r0.example"), "used lately");
    assert.ok(!names().includes("r1.example"));
    assert.ok(!names().includes("r3.example"));
    assert.ok(names().includes("r4.example"));
  });

  void it("replace no listed one while their registries do not answer, however many names are requested", () => {
    const { use, answer, names } = setUp();
    use("real.example");
    answer("real.example");
    for (let i = 0; i < 900; i++) use(`invented${i}.example`);
    assert.deepEqual(names(), ["real.example"]);
  });

  void it("are refused while too many wait for an answer, or are not closed yet", () => {
    const { use, busy } = setUp();
    for (let i = 0; i < 32; i++) {
      busy.add(`slow${i}.example`);
      use(`slow${i}.example`);
    }
    assert.throws(() => use("other.example"), isBusy);
    assert.ok(use("slow0.example"), "those that exist are found");
    busy.delete("slow7.example");
    assert.ok(use("other.example"));
    const churn = setUp();
    let made = 0;
    assert.throws(() => {
      for (; made < 10_000; made++) churn.use(`r${made}.example`);
    }, isBusy);
    assert.ok(made > 900 && made < 1_100, String(made));
  });

  void it("are closed some time after their removal, when they are idle", () => {
    const { use, answer, set, look, closed, busy, names } = setUp();
    use("never.example");
    use("kept.example");
    answer("kept.example");
    busy.add("kept.example");
    look();
    look();
    look();
    assert.deepEqual(closed, ["never.example"]);
    assert.ok(set.replace([], []));
    assert.deepEqual(names(), []);
    for (let i = 0; i < 4; i++) look();
    assert.deepEqual(closed, ["never.example"], "a download runs");
    busy.delete("kept.example");
    for (let i = 0; i < 3; i++) look();
    assert.deepEqual(closed, ["never.example", "kept.example"]);
  });

  void it("are kept at a reload that does not change them", () => {
    const { use, answer, set } = setUp();
    const kept = use("kept.example");
    answer("kept.example");
    const own = {
      ...TEMPLATE,
      name: "own.example",
      endpoints: ["https://own.example"],
    };
    use("own.example");
    answer("own.example");
    assert.ok(set.replace([own], [TEMPLATE]));
    assert.equal(use("kept.example"), kept);
    assert.equal(set.templated.peek("own.example"), undefined);
    assert.ok(set.replace([own], [{ ...TEMPLATE, deny: ["**"] }]));
    assert.notEqual(use("kept.example"), kept);
    assert.ok(!set.replace([own], [{ ...TEMPLATE, deny: ["**"] }]));
  });
});
