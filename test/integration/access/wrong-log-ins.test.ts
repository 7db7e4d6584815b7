import assert from "node:assert/strict";
import { test } from "node:test";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
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
