import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { setImmediate } from "node:timers/promises";
import { describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Secret } from "../../../src/config/config.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const ROUNDS = 60;
/** Bound of a shared signal's listeners: work that still runs, and listeners not yet collected. */
const MAX_LEFT = 8;

const IMAGE = buildImage({ seed: "signals" });

interface Watch {
  /** Returns signals with at least this many listeners or combinations. */
  readonly usedOften: (uses: number) => AbortSignal[];
}

/** Counts the uses of each signal, and keeps all signals until the test ends. */
function watchSignals(test: AfterTest): Watch {
  const uses = new Map<AbortSignal, number>();
  const use = (signal: unknown): void => {
    if (!(signal instanceof AbortSignal)) return;
    uses.set(signal, (uses.get(signal) ?? 0) + 1);
  };
  const any = Reflect.get(AbortSignal, "any") as (
    this: typeof AbortSignal,
    signals: Iterable<AbortSignal>,
  ) => AbortSignal;
  const addEventListener = Reflect.get(
    EventTarget.prototype,
    "addEventListener",
  ) as (this: EventTarget, ...args: unknown[]) => void;
  AbortSignal.any = (signals) => {
    const all = [...signals];
    all.forEach(use);
    return any.call(AbortSignal, all);
  };
  EventTarget.prototype.addEventListener = function (...args: unknown[]) {
    use(this);
    addEventListener.apply(this, args);
  };
  releaseAfter(test, () => {
    AbortSignal.any = any;
    EventTarget.prototype.addEventListener = addEventListener;
  });
  return {
    usedOften: (count) =>
      [...uses].filter(([, n]) => n >= count).map(([signal]) => signal),
  };
}

/** Returns the number of live signals that `AbortSignal.any` derived from this one. */
function dependants(signal: AbortSignal): number {
  const symbol = Object.getOwnPropertySymbols(signal).find(
    ({ description }) => description === "kDependantSignals",
  );
  const held = symbol === undefined ? undefined : Reflect.get(signal, symbol);
  if (!(held instanceof Set)) return 0;
  return [...(held as Set<WeakRef<AbortSignal>>)].filter(
    (one) => one.deref() !== undefined,
  ).length;
}

async function collectGarbage(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let i = 0; i < 5; i++) {
    await setImmediate();
    collect();
  }
}

void describe("one signal for many requests (R11)", () => {
  void it("has listeners of running requests only", async (test) => {
    const watch = watchSignals(test);
    const upstream = await ScriptedUpstream.start(test, {
      auth: { scheme: "bearer", users: { ci: "pw" } },
    });
    for (let i = 0; i < ROUNDS; i++) {
      upstream.content.addImage(`a/r${i}`, IMAGE, "v");
    }
    const mirror = await startMirror(test, [
      upstreamOf(upstream, {
        credentials: [{ username: "ci", password: new Secret("pw") }],
      }),
    ]);
    for (let i = 0; i < ROUNDS; i++) {
      const { digest } = IMAGE.manifest;
      for (const [path, status] of [
        [`a/r${i}/manifests/v`, 200],
        [`a/r${i}/manifests/${digest}`, 200],
        [`a/r${i}/blobs/${IMAGE.config.digest}`, 200],
        [`a/r${i}/tags/list`, 200],
        [`a/r${i}/referrers/${digest}`, 200],
        [`a/none${i}/manifests/v`, 404],
      ] as const) {
        const got = await mirror.get(`/v2/${path}`);
        assert.equal(got.status, status, path);
      }
    }
    await mirror.settled();
    await collectGarbage();
    // Signals of one request are used by it only; these are shared by all.
    const shared = watch.usedOften(ROUNDS / 2);
    assert.ok(shared.length > 0);
    for (const signal of shared) {
      const left = getEventListeners(signal, "abort").length;
      assert.ok(left <= MAX_LEFT, `${left} listeners of one signal`);
      const made = dependants(signal);
      assert.ok(made <= MAX_LEFT, `${made} signals made from one`);
    }
    test.diagnostic(`${shared.length} signals are shared`);
  });
});
