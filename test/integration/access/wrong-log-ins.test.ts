import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { startMirror } from "../../support/mirror-harness.ts";

const USERS = 5;
const GUESSES = 500;

void test("500 wrong log-ins at once cost 30 looks at a password and hold up nobody who is known", async (t) => {
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
      // Everybody's name is tried, that of the known one too.
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
  // The clock stands: no chance comes back.
  assert.deepEqual([count(401), count(429)], [30, GUESSES - 30]);
  assert.equal((await mirror.get("/v2/", known)).status, 200);
});

/** The hashes that the mirror's threads are told to compare with, as they are told. */
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
  const tell = async (user: string, password: string): Promise<unknown> => {
    hashes.length = 0;
    // So that no limit stands in the way.
    mirror.clock.advance(60_000);
    const { status, headers, body } = await mirror.get("/v2/", {
      Authorization: basic(user, password),
    });
    const { date: _, ...told } = headers;
    const costs = hashes.map((hash) => hash.slice(0, 7));
    return { status, told, body: body.toString(), costs };
  };
  for (const password of ["wrong", "pw", "", "x".repeat(100)]) {
    const known = await tell("bob", password);
    const { status, costs } = known as { status: number; costs: string[] };
    assert.equal(status, 401);
    const isComputed = password === "wrong" || password === "pw";
    assert.deepEqual(costs, isComputed ? ["$2b$04$"] : []);
    for (const user of ["mallory", "bo", "bobby", "BOB"]) {
      assert.deepEqual(await tell(user, password), known, user);
    }
  }
});
