import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedBudget } from "../../support/scripted-budget.ts";
import type { UpstreamAuth } from "../../support/scripted-tokens.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const TAG_TTL_MS = 600_000;
const DAY_MS = 24 * 3_600_000;
const TAGS = Array.from({ length: 50 }, (_, index) => `t${index}`);
const REPOSITORY = "library/app";
const NAME = "registry.example";

interface Hub {
  readonly clock: FakeClock;
  readonly upstream: ScriptedUpstream;
  readonly budget: ScriptedBudget;
  readonly mirror: TestMirror;
}

/** A registry like Docker Hub: tokens from another host, blobs from a third, a budget of manifests. */
async function startHub(
  test: AfterTest,
  options: {
    readonly auth?: UpstreamAuth;
    readonly users?: Readonly<Record<string, string>>;
    readonly limit?: number;
  } = {},
): Promise<Hub> {
  const clock = new FakeClock();
  const { users = {}, limit = 100 } = options;
  const upstream = await ScriptedUpstream.start(test, {
    auth: options.auth ?? { scheme: "bearer", realm: "host", users },
    redirectBlobs: { host: "127.0.0.3" },
    clock,
  });
  const budget = new ScriptedBudget(upstream, { clock, limit });
  const mirror = await startMirror(
    test,
    [
      upstreamOf(upstream, {
        tokenRealms: ["127.0.0.2"],
        credentials: Object.entries(users).map(([username, password]) => ({
          username,
          password: new Secret(password),
        })),
      }),
    ],
    { clock },
  );
  return { clock, upstream, budget, mirror };
}

/** Points every tag to a new image. */
function publish(
  { upstream }: Hub,
  generation: number,
  tags: readonly string[] = TAGS,
): void {
  for (const tag of tags) {
    const image = buildImage({ seed: `${tag} ${generation}` });
    upstream.content.addImage(REPOSITORY, image, tag);
  }
}

/** Each client pulls one image; all at the same time. */
async function pullTogether(
  { mirror }: Hub,
  clients: number,
  firstTag: number,
): Promise<void> {
  await Promise.all(
    Array.from({ length: clients }, (_, client) =>
      pullImage(mirror, REPOSITORY, `t${(firstTag + client) % TAGS.length}`),
    ),
  );
}

function tagPath(tag: string): string {
  return `/v2/${REPOSITORY}/manifests/${tag}`;
}

function gauge(
  { mirror }: Hub,
  name: "limit" | "remaining",
  credential: string,
): Promise<number> {
  return mirror.metric(
    `entrepot_upstream_ratelimit_${name}{upstream="${NAME}",credential="${credential}"}`,
  );
}

void describe("a budget of 100 manifests in six hours", () => {
  void it("suffices for 1 000 pulls of 50 tags by 20 clients a day, and for tags that move after it is spent", async (test) => {
    const hub = await startHub(test);
    const { clock, upstream, budget } = hub;
    publish(hub, 0);

    // 100 pulls within the first time to live of the tags; every tag is pulled twice.
    const clients = 20;
    for (let round = 0; round < 5; round++) {
      await pullTogether(hub, clients, round * clients);
      clock.advance(TAG_TTL_MS / 5 - 1);
    }
    assert.equal(budget.counted, TAGS.length);
    assert.equal(await gauge(hub, "limit", "anonymous"), 100);
    assert.equal(await gauge(hub, "remaining", "anonymous"), 50);

    // 900 more over the day, while no tag moves.
    for (let round = 5; round < 50; round++) {
      clock.advance(DAY_MS / 45);
      await pullTogether(hub, clients, round * clients);
    }
    assert.equal(budget.counted, TAGS.length);
    assert.equal(budget.refused, 0);
    assert.equal(upstream.count({ kind: "manifest", status: 429 }), 0);
    assert.equal(
      upstream.count({ kind: "blob", method: "GET" }),
      TAGS.length * 2,
    );

    // All tags move twice within the window: the last tenth is reserved.
    clock.advance(DAY_MS);
    for (const generation of [1, 2]) {
      publish(hub, generation);
      clock.advance(TAG_TTL_MS);
      await pullTogether(hub, TAGS.length, 0);
    }
    assert.ok(budget.remaining() >= 10 - 8, `${budget.remaining()} left`);
    assert.equal(budget.refused, 0);

    // Other clients of the same address use it up.
    budget.spend(budget.remaining());
    publish(hub, 3);
    for (let round = 0; round < 5; round++) {
      clock.advance(TAG_TTL_MS);
      await pullTogether(hub, TAGS.length, 0);
    }
    assert.equal(await gauge(hub, "remaining", "anonymous"), 0);
  });

  void it("that is down to a tenth leaves moved tags stale, with one HEAD per tag and time to live", async (test) => {
    const hub = await startHub(test);
    const { clock, upstream, budget, mirror } = hub;
    publish(hub, 0, ["t0", "t1"]);
    await pullImage(mirror, REPOSITORY, "t0");
    const before = await mirror.get(tagPath("t0"));
    budget.spend(89);
    publish(hub, 1, ["t0"]);
    for (let life = 0; life < 3; life++) {
      clock.advance(TAG_TTL_MS);
      upstream.forgetRequests();
      for (let ask = 0; ask < 10; ask++) {
        const answer = await mirror.get(tagPath("t0"));
        assert.equal(answer.status, 200);
        assert.equal(answer.sha256, before.sha256);
        assert.equal(cacheStatusOf(answer), "hit; detail=stale");
        assert.ok(answer.headers["warning"]);
      }
      assert.equal(upstream.count({ kind: "manifest", method: "HEAD" }), 1);
      assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 0);
    }
    // The rest is reserved for content that is not cached.
    await pullImage(mirror, REPOSITORY, "t1");
    assert.equal(budget.counted, 2);
  });

  void it("that is available again fetches the moved tag immediately", async (test) => {
    const hub = await startHub(test);
    const { clock, budget, mirror } = hub;
    publish(hub, 0, ["t0"]);
    await pullImage(mirror, REPOSITORY, "t0");
    budget.spend(95);
    publish(hub, 1, ["t0"]);
    clock.advance(TAG_TTL_MS);
    assert.equal(
      cacheStatusOf(await mirror.get(tagPath("t0"))),
      "hit; detail=stale",
    );
    assert.equal(await gauge(hub, "remaining", "anonymous"), 4);
    // No request was sent for so long that the count has expired.
    clock.advance(6 * 3_600_000);
    assert.equal(await gauge(hub, "remaining", "anonymous"), 0);
    assert.equal(
      cacheStatusOf(await mirror.get(tagPath("t0"))),
      "fwd=stale; fwd-status=200; stored",
    );
    assert.equal(await gauge(hub, "remaining", "anonymous"), 99);
  });

  void it("does not delay a tag that moved to a cached image, or did not move", async (test) => {
    const hub = await startHub(test);
    const { clock, upstream, budget, mirror } = hub;
    publish(hub, 0, ["t0", "t1"]);
    await pullImage(mirror, REPOSITORY, "t0");
    await pullImage(mirror, REPOSITORY, "t1");
    budget.spend(95);
    upstream.content.addImage(REPOSITORY, buildImage({ seed: "t1 0" }), "t0");
    clock.advance(TAG_TTL_MS);
    assert.equal(
      cacheStatusOf(await mirror.get(tagPath("t1"))),
      "fwd=stale; fwd-status=200; detail=revalidated",
    );
    assert.equal(
      cacheStatusOf(await mirror.get(tagPath("t0"))),
      "fwd=stale; fwd-status=200; stored",
    );
    assert.equal(budget.counted, 2);
  });
});

void describe("two credentials", () => {
  const USERS = { acme: "canary-one", other: "canary-two" };

  for (const scheme of ["bearer", "basic"] as const) {
    void it(`with one exhausted account: pulls use the other, by ${scheme}, and the gauges report both`, async (test) => {
      const hub = await startHub(test, {
        users: USERS,
        auth:
          scheme === "basic"
            ? { scheme, users: USERS }
            : { scheme, realm: "host", users: USERS, anonymous: false },
      });
      const { clock, budget, upstream } = hub;
      publish(hub, 0);
      budget.spend(100, "acme");
      await pullTogether(hub, 20, 0);
      assert.equal(await gauge(hub, "remaining", "acme"), 0);
      assert.equal(await gauge(hub, "limit", "acme"), 100);
      assert.equal(await gauge(hub, "remaining", "other"), 80);
      assert.equal(await gauge(hub, "remaining", "anonymous"), 0);
      // The first requests noticed the limit; the account was not used afterwards.
      assert.ok(budget.refused <= 8, `${budget.refused} refused`);
      upstream.forgetRequests();
      clock.advance(10_000);
      await pullTogether(hub, 20, 20);
      assert.equal(upstream.count({ status: 429 }), 0);
    });
  }

  void it("are used in turn, the one with most remaining quota first", async (test) => {
    const hub = await startHub(test, {
      users: USERS,
      auth: { scheme: "basic", users: USERS },
    });
    const { budget, mirror } = hub;
    publish(hub, 0);
    budget.spend(50, "acme");
    for (const tag of TAGS.slice(0, 20)) {
      await pullImage(mirror, REPOSITORY, tag);
    }
    // Neither budget was known before the first pull.
    assert.equal(budget.remaining("acme"), 49);
    assert.equal(budget.remaining("other"), 81);
  });

  void it("that are both exhausted: 429 if nothing is cached, else stale", async (test) => {
    const hub = await startHub(test, {
      users: USERS,
      auth: { scheme: "basic", users: USERS },
    });
    const { clock, budget, mirror, upstream } = hub;
    publish(hub, 0);
    await pullImage(mirror, REPOSITORY, "t0");
    for (const user of Object.keys(USERS)) budget.spend(100, user);
    clock.advance(TAG_TTL_MS);
    await pullImage(mirror, REPOSITORY, "t0");
    const missing = await mirror.get(tagPath("t1"));
    assert.equal(missing.status, 429);
    assert.equal(errorCode(missing), "TOOMANYREQUESTS");
    upstream.forgetRequests();
    for (let retry = 0; retry < 5; retry++) {
      assert.equal((await mirror.get(tagPath("t1"))).status, 429);
    }
    assert.equal(upstream.count(), 0);
  });
});

void describe("a 429 for an hour", () => {
  for (const retryAfter of [
    "3600",
    "Thu, 01 Jan 2026 01:00:00 GMT",
    "soon",
    undefined,
  ]) {
    const restMs =
      retryAfter === undefined || retryAfter === "soon" ? 30_000 : 900_000;
    void it(`with Retry-After ${retryAfter}: stale immediately, 429 if nothing is cached, no request in between`, async (test) => {
      const clock = new FakeClock();
      const upstream = await ScriptedUpstream.start(test, { clock });
      const image = buildImage({ seed: "hour" });
      upstream.content.addImage(REPOSITORY, image, "1");
      upstream.content.addImage(REPOSITORY, buildImage({ seed: "other" }), "2");
      const mirror = await startMirror(test, [upstreamOf(upstream)], { clock });
      await pullImage(mirror, REPOSITORY, "1");
      upstream.when(
        {},
        {
          status: 429,
          headers:
            retryAfter === undefined ? {} : { "retry-after": retryAfter },
        },
      );
      clock.setWall(Date.UTC(2026, 0, 1));
      clock.advance(TAG_TTL_MS);
      upstream.forgetRequests();
      const startMs = clock.monotonicMs();
      let dials = 0;
      // An hour, or ten rests if that is shorter.
      const lastsMs = Math.min(3_600_000 - TAG_TTL_MS, restMs * 10);
      while (clock.monotonicMs() - startMs < lastsMs) {
        // containerd's five attempts, by three clients.
        for (let retry = 0; retry < 15; retry++) {
          const cached = await mirror.get(tagPath("1"));
          assert.equal(cached.status, 200);
          assert.equal(cached.sha256, image.manifest.digest);
          const missing = await mirror.get(tagPath("2"));
          assert.equal(missing.status, 429);
          assert.equal(errorCode(missing), "TOOMANYREQUESTS");
          assert.ok(Number(missing.headers["retry-after"]) >= 1);
          assert.ok(Number(missing.headers["retry-after"]) <= 10);
        }
        const asked = upstream.count();
        assert.ok(asked - dials <= 1, `${asked - dials} requests in one rest`);
        dials = asked;
        clock.advance(restMs / 2);
      }
      const rests = Math.ceil(lastsMs / restMs);
      assert.ok(dials <= rests, `${dials} requests in ${rests} rests`);
    });
  }
});
