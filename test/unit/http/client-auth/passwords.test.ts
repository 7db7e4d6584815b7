import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { compareSync } from "bcryptjs";
import {
  bcryptCost,
  parseHtpasswd,
} from "../../../../src/config/files/htpasswd.ts";
import type { PasswordHasher } from "../../../../src/http/client-auth/password-hasher.ts";
import {
  createPasswordHasher,
  startBcryptWorker,
} from "../../../../src/http/client-auth/password-hasher.ts";
import { Passwords } from "../../../../src/http/client-auth/passwords.ts";
import { htpasswdText } from "../../../support/access.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const HERE = "192.0.2.1";
const ELSEWHERE = "198.51.100.1";

function hashesOf(passwords: Record<string, string>, cost = 4) {
  const parsed = parseHtpasswd(htpasswdText(passwords, cost));
  assert.ok(parsed.ok);
  return parsed.hashes;
}

/** Compares immediately, and records the hashes. */
class CountingHasher implements PasswordHasher {
  readonly hashes: string[] = [];
  isFull = false;
  isBroken = false;

  compare(password: string, hash: string): Promise<boolean> | undefined {
    if (this.isFull) return undefined;
    if (this.isBroken) return Promise.reject(new Error("no thread"));
    this.hashes.push(hash);
    return Promise.resolve(compareSync(password, hash));
  }
  retire(): Promise<void> {
    return Promise.resolve();
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

function open(users: Record<string, string> = { alice: "right", bob: "bobs" }) {
  const clock = new FakeClock();
  const hasher = new CountingHasher();
  const passwords = new Passwords({ hasher, clock });
  passwords.setHashes(hashesOf(users));
  const kinds = async (
    count: number,
    user: string,
    password: string,
    address = HERE,
  ): Promise<string[]> => {
    const found: string[] = [];
    for (let i = 0; i < count; i++) {
      found.push((await passwords.check(user, password, address)).kind);
    }
    return found;
  };
  return { clock, hasher, passwords, kinds };
}

void describe("passwords", () => {
  void it("are computed once in five minutes if correct", async () => {
    const { clock, hasher, kinds } = open();
    assert.deepEqual(await kinds(3, "alice", "right"), Array(3).fill("right"));
    assert.equal(hasher.hashes.length, 1);
    clock.advance(5 * 60_000 - 1);
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
    assert.equal(hasher.hashes.length, 1);
    clock.advance(1);
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
    assert.equal(hasher.hashes.length, 2);
  });

  void it("that could not be compared cost no token", async () => {
    const { hasher, passwords, kinds } = open();
    hasher.isBroken = true;
    for (let i = 0; i < 100; i++) {
      await assert.rejects(
        passwords.check("alice", "right", HERE),
        /no thread/,
      );
    }
    hasher.isBroken = false;
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
  });

  void it("are computed once for concurrent requests with the same password", async () => {
    const { hasher, passwords } = open();
    const all = await Promise.all(
      Array.from({ length: 100 }, () =>
        passwords.check("alice", "right", HERE),
      ),
    );
    assert.ok(all.every(({ kind }) => kind === "right"));
    assert.equal(hasher.hashes.length, 1);
  });

  void it("of unknown users are compared at the same bcrypt cost as those of known users", async () => {
    const { hasher, passwords } = open({});
    for (const cost of [4, 6]) {
      passwords.setHashes(hashesOf({ alice: "right" }, cost));
      hasher.hashes.length = 0;
      for (const user of ["alice", "mallory"]) {
        const { kind } = await passwords.check(user, "wrong", HERE);
        assert.equal(kind, "wrong");
      }
      assert.deepEqual(hasher.hashes.map(bcryptCost), [cost, cost]);
    }
  });

  void it("of unknown users cost as much as those of known ones, the same each time for a name (S15)", async () => {
    const { clock, hasher, passwords } = open({});
    passwords.setHashes(
      new Map([
        ...hashesOf({ alice: "right" }, 4),
        ...hashesOf({ bob: "right" }, 5),
        ...hashesOf({ carol: "right" }, 6),
      ]),
    );
    const costsOf = async (user: string): Promise<string> => {
      hasher.hashes.length = 0;
      for (let i = 0; i < 3; i++) {
        clock.advance(60_000);
        const { kind } = await passwords.check(user, `wrong ${i}`, HERE);
        assert.equal(kind, "wrong");
      }
      return hasher.hashes.map(bcryptCost).join(" ");
    };
    assert.equal(await costsOf("alice"), "4 4 4");
    assert.equal(await costsOf("carol"), "6 6 6");
    const seen = new Set<string>();
    for (let i = 0; i < 60; i++) seen.add(await costsOf(`unknown-${i}`));
    assert.deepEqual([...seen].toSorted(), ["4 4 4", "5 5 5", "6 6 6"]);
  });

  void it("are rejected without computing if empty or longer than bcrypt reads", async () => {
    const long = "x".repeat(72);
    const { hasher, kinds } = open({ alice: long });
    assert.deepEqual(await kinds(1, "alice", long), ["right"]);
    assert.equal(hasher.hashes.length, 1);
    for (const password of [`${long}y`, "x".repeat(10_240), ""]) {
      assert.deepEqual(await kinds(1, "alice", password), ["wrong"]);
    }
    assert.equal(hasher.hashes.length, 1);
  });

  void it("are not compared after ten failures a minute of one user from one address", async () => {
    const { clock, hasher, kinds, passwords } = open();
    const tries = await kinds(100, "alice", "wrong");
    assert.deepEqual(tries, [
      ...Array<string>(10).fill("wrong"),
      ...Array<string>(90).fill("limited"),
    ]);
    assert.equal(hasher.hashes.length, 10);
    const limited = await passwords.check("alice", "right", HERE);
    assert.deepEqual(limited, { kind: "limited", retryAfterMs: 6_000 });
    // Other users from this address, and the same user from another one, are not limited.
    assert.deepEqual(await kinds(1, "bob", "bobs"), ["right"]);
    assert.deepEqual(await kinds(1, "alice", "right", ELSEWHERE), ["right"]);
    clock.advance(6_000);
    assert.deepEqual(await kinds(2, "alice", "wrong"), ["wrong", "limited"]);
    clock.advance(60_000);
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
  });

  void it("are not checked after thirty failures a minute from one source, for any user name", async () => {
    const { hasher, passwords } = open();
    const kinds: string[] = [];
    for (let i = 0; i < 500; i++) {
      const { kind } = await passwords.check(`user-${i}`, "guess", HERE);
      kinds.push(kind);
    }
    assert.equal(kinds.filter((kind) => kind === "wrong").length, 30);
    assert.equal(kinds.filter((kind) => kind === "limited").length, 470);
    assert.equal(hasher.hashes.length, 30);
  });

  void it("are limited per IPv6 /64 network", async () => {
    const { hasher, passwords } = open();
    for (let i = 0; i < 100; i++) {
      await passwords.check("alice", `guess-${i}`, `2001:db8:1:2::${i}`);
    }
    assert.equal(hasher.hashes.length, 10);
    const { kind } = await passwords.check("alice", "x", "2001:db8:1:3::1");
    assert.equal(kind, "wrong");
  });

  void it("that were right are not limited by the failures of others", async () => {
    const { clock, kinds } = open();
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
    await kinds(100, "alice", "wrong");
    for (let i = 0; i < 100; i++) await kinds(1, `user-${i}`, "wrong");
    assert.deepEqual(await kinds(1, "bob", "bobs"), ["limited"]);
    assert.deepEqual(await kinds(5, "alice", "right"), Array(5).fill("right"));
    clock.advance(60_000);
    assert.deepEqual(await kinds(1, "bob", "bobs"), ["right"]);
  });

  void it("cannot exceed the limit when they are concurrent", async () => {
    const { hasher, passwords } = open();
    const all = await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        passwords.check("alice", `guess-${i}`, HERE),
      ),
    );
    assert.equal(all.filter(({ kind }) => kind === "wrong").length, 10);
    assert.equal(hasher.hashes.length, 10);
  });

  void it("cost no token if correct", async () => {
    const users = Array.from({ length: 50 }, (_, i) => `user-${i}`);
    const { kinds } = open(Object.fromEntries(users.map((one) => [one, "pw"])));
    for (const user of users) {
      assert.deepEqual(await kinds(1, user, "pw"), ["right"]);
    }
    const guesses = await kinds(11, "mallory", "pw");
    assert.equal(guesses.filter((kind) => kind === "wrong").length, 10);
  });

  void it("are limited if the queue is full, without counting as failures", async () => {
    const { hasher, kinds } = open();
    hasher.isFull = true;
    assert.deepEqual(
      await kinds(50, "alice", "right"),
      Array(50).fill("limited"),
    );
    hasher.isFull = false;
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
  });

  void it("are those of the file as soon as it has changed", async () => {
    const { passwords, kinds } = open();
    assert.deepEqual(await kinds(1, "alice", "right"), ["right"]);
    passwords.setHashes(hashesOf({ alice: "new" }));
    assert.deepEqual(await kinds(1, "alice", "right"), ["wrong"]);
    assert.deepEqual(await kinds(1, "alice", "new"), ["right"]);
    passwords.setHashes(hashesOf({ bob: "bobs" }));
    assert.deepEqual(await kinds(1, "alice", "new"), ["wrong"]);
  });
});

function startHasher(test: AfterTest): PasswordHasher {
  const hasher = createPasswordHasher();
  releaseAfter(test, () => hasher.close());
  return hasher;
}

void describe("the bcrypt threads", () => {
  void it("compare as bcrypt does, outside the main thread", async (test) => {
    const hasher = startHasher(test);
    const hashes = hashesOf({ alice: "rïght" });
    const hash = hashes.get("alice") ?? "";
    assert.equal(await hasher.compare("rïght", hash), true);
    assert.equal(await hasher.compare("wrong", hash), false);
    // Apache's and the oldest prefix are the same algorithm.
    for (const prefix of ["$2y$", "$2a$"]) {
      const other = prefix + hash.slice(4);
      assert.equal(await hasher.compare("rïght", other), true, prefix);
    }
  });

  void it("queue at most 64 comparisons, and finish each of them", async (test) => {
    const hasher = startHasher(test);
    const hash = hashesOf({ alice: "right" }, 8).get("alice") ?? "";
    const asked = Array.from({ length: 200 }, (_, i) =>
      hasher.compare(i % 2 === 0 ? "right" : "wrong", hash),
    );
    const taken = asked.filter((one) => one !== undefined);
    assert.equal(taken.length, 66);
    const answers = await Promise.all(taken);
    assert.deepEqual(
      answers,
      answers.map((_, i) => i % 2 === 0),
    );
  });

  void it("finish every waiting comparison before they retire", async () => {
    const hasher = createPasswordHasher();
    const hash = hashesOf({ alice: "right" }, 8).get("alice") ?? "";
    const waiting = Array.from({ length: 10 }, async (_, i) =>
      hasher.compare(i % 2 === 0 ? "right" : "wrong", hash),
    );
    await hasher.retire();
    assert.deepEqual(
      await Promise.all(waiting),
      waiting.map((_, i) => i % 2 === 0),
    );
    assert.equal(hasher.compare("right", hash), undefined);
  });

  void it("that cannot be started reject the waiting comparisons, and are started again later", async (test) => {
    let missing = 2;
    const hasher = createPasswordHasher(() => {
      if (missing-- > 0) throw new Error("ERR_WORKER_INIT_FAILED: EAGAIN");
      return startBcryptWorker();
    });
    releaseAfter(test, () => hasher.close());
    const hash = hashesOf({ alice: "right" }).get("alice") ?? "";
    for (const _ of [1, 2]) {
      await assert.rejects(async () => hasher.compare("right", hash), /EAGAIN/);
    }
    assert.equal(await hasher.compare("right", hash), true);
  });

  void it("end with the mirror, and reject the waiting comparisons", async () => {
    const hasher = createPasswordHasher();
    const hash = hashesOf({ alice: "right" }, 12).get("alice") ?? "";
    const waiting = Array.from({ length: 5 }, async () =>
      hasher.compare("right", hash),
    );
    const settled = Promise.allSettled(waiting);
    await hasher.close();
    assert.ok((await settled).every(({ status }) => status === "rejected"));
    assert.equal(hasher.compare("right", hash), undefined);
  });
});
