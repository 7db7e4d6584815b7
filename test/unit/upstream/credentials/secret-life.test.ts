import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lifeOfSecret } from "../../../../src/upstream/credentials/secret-life.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const HOUR_MS = 3_600_000;

function encode(content: unknown): string {
  return Buffer.from(JSON.stringify(content)).toString("base64");
}

function jwt(exp: unknown): string {
  return `${encode({ alg: "none" })}.${encode({ exp })}.signature`;
}

function inSeconds(durationMs: number): number {
  return (NOW_MS + durationMs) / 1_000;
}

const CASES: readonly (readonly [
  name: string,
  secret: string,
  renewAfterMs: number,
  expiresAfterMs: number,
])[] = [
  [
    "an ECR password of twelve hours an hour and more before its end",
    encode({ payload: "x", version: "2", expiration: inSeconds(12 * HOUR_MS) }),
    10.8 * HOUR_MS,
    12 * HOUR_MS,
  ],
  [
    "a JWT of three hours",
    jwt(inSeconds(3 * HOUR_MS)),
    2.7 * HOUR_MS,
    3 * HOUR_MS,
  ],
  [
    "a JWT that expires in years",
    jwt(inSeconds(9e9)),
    10.8 * HOUR_MS,
    12 * HOUR_MS,
  ],
  ["an expired JWT", jwt(inSeconds(-HOUR_MS)), 60_000, 0],
  ["a JWT whose expiry is not a number", jwt("tomorrow"), 300_000, Infinity],
  ["an opaque one", "ya29.a0AfH6SMBx", 300_000, Infinity],
  ["a password", "correct horse", 300_000, Infinity],
  ["dots", "...", 300_000, Infinity],
  ["nothing", "", 300_000, Infinity],
];

void describe("lifeOfSecret", () => {
  for (const [name, secret, renewAfterMs, expiresAfterMs] of CASES) {
    void it(`renews ${name} after ${renewAfterMs} ms`, () => {
      assert.deepEqual(lifeOfSecret(secret, NOW_MS), {
        renewAfterMs,
        expiresAfterMs,
      });
    });
  }
});
