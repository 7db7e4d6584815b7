import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { startMirror } from "../../support/mirror-harness.ts";

const USERS = 5;
const GUESSES = 500;

void test("500 concurrent wrong log-ins cost 30 comparisons and do not delay verified users", async (t) => {
  const mirror = await startMirror(t, [], {
    access: accessConfig({
      htpasswdFile: await writeHtpasswd(t, { alice: "pw" }),
      anonymous: "none",
    }),
  });
  const known = { Authorization: basic("alice", "pw") };
  assert.equal((await mirror.get("/v2/", known)).status, 200);
  const guesses = Array.from({ length: GUESSES }, (_, i) =>
    mirror.get("/v2/", {
      // Guesses for many users, including the verified one.
      Authorization: basic(i % USERS === 0 ? "alice" : `user-${i}`, `g-${i}`),
    }),
  );
  const knowns = Array.from({ length: 100 }, () => mirror.get("/v2/", known));
  assert.deepEqual(
    new Set((await Promise.all(knowns)).map(({ status }) => status)),
    new Set([200]),
  );
  const statuses = (await Promise.all(guesses)).map(({ status }) => status);
  const count = (wanted: number): number =>
    statuses.filter((status) => status === wanted).length;
  // The clock stands still, so the limit does not recover.
  assert.deepEqual([count(401), count(429)], [30, GUESSES - 30]);
  assert.equal((await mirror.get("/v2/", known)).status, 200);
});

/** Records the hashes that the mirror's threads receive for comparison. */
function watchComparisons(t: AfterTest): string[] {
  const hashes: string[] = [];
  const post = Reflect.get(Worker.prototype, "postMessage") as (
    this: Worker,
    ...args: unknown[]
  ) => void;
  Worker.prototype.postMessage = function (...args: unknown[]) {
    const [message] = args as [{ readonly hash?: unknown }];
    if (typeof message.hash === "string") hashes.push(message.hash);
    post.apply(this, args);
  };
  releaseAfter(t, () => {
    Worker.prototype.postMessage = post;
  });
  return hashes;
}

void test("a wrong password and an unknown user are the same answer, after the same work (S15)", async (t) => {
  const hashes = watchComparisons(t);
  const mirror = await startMirror(t, [], {
    access: accessConfig({
      htpasswdFile: await writeHtpasswd(t, { alice: "pw", bob: "other" }),
      anonymous: "none",
    }),
  });
  const logIn = async (user: string, password: string): Promise<unknown> => {
    hashes.length = 0;
    // Lets the limit of failures recover.
    mirror.clock.advance(60_000);
    const { status, headers, body } = await mirror.get("/v2/", {
      Authorization: basic(user, password),
    });
    const { date: _, ...stable } = headers;
    const costs = hashes.map((hash) => hash.slice(0, 7));
    return { status, stable, body: body.toString(), costs };
  };
  for (const password of ["wrong", "pw", "", "x".repeat(100)]) {
    const known = await logIn("bob", password);
    const { status, costs } = known as { status: number; costs: string[] };
    assert.equal(status, 401);
    const isComputed = password === "wrong" || password === "pw";
    assert.deepEqual(costs, isComputed ? ["$2b$04$"] : []);
    for (const user of ["mallory", "bo", "bobby", "BOB"]) {
      assert.deepEqual(await logIn(user, password), known, user);
    }
  }
});
