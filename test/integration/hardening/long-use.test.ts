import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import { releaseAfter } from "../../support/after-test.ts";
import { seededBlob } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const ROUNDS = 4;
const SIZE = 150_000;
const ALICE = { Authorization: basic("alice", "pw") };

/** Faults of an upstream's body; each occurs once a round. */
const FAULTS: readonly Misbehaviour[] = [
  { status: 404 },
  { status: 429, headers: { "Retry-After": "1" } },
  { status: 500 },
  { cut: { atByte: 70_000, by: "fin" } },
  { cut: { atByte: 70_000, by: "rst" } },
  { cut: { atByte: 70_000, by: "rst" }, framing: "chunked" },
  { flip: "last" },
  { shortenTo: 100 },
  { appendBytes: 100 },
  { raw: "nonsense\r\n\r\n" },
  { gzip: true },
];

interface Held {
  /** Open files of the storage. */
  readonly files: number;
  readonly sockets: number;
  readonly timers: number;
  readonly partials: readonly string[];
}

/** Returns the resources that the idle process holds. */
async function holds(mirror: TestMirror): Promise<Held> {
  const links = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
  return {
    // Threads start on demand and hold files of their own.
    files: links.filter((link) => link.startsWith(mirror.root)).length,
    sockets: links.filter((link) => link.startsWith("socket:")).length,
    timers: process
      .getActiveResourcesInfo()
      .filter((kind) => kind === "Timeout").length,
    partials: (await readdir(join(mirror.root, "partial"))).filter(
      (name) => name !== "boot-id",
    ),
  };
}

void describe("a mirror under repeated faults (R10)", () => {
  void it("holds no more descriptors, timers and partials than after the first round, without warnings", async (test) => {
    const warnings: string[] = [];
    const onWarning = (warning: Error): void =>
      void warnings.push(`${warning}`);
    process.on("warning", onWarning);
    releaseAfter(test, () => void process.off("warning", onWarning));
    const upstream = await ScriptedUpstream.start(test);
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      access: accessConfig({
        htpasswdFile: await writeHtpasswd(test, { alice: "pw" }),
        anonymous: "none",
      }),
    });
    const round = async (at: number): Promise<void> => {
      for (const [i, fault] of FAULTS.entries()) {
        const blob = seededBlob(`${at} ${i}`, SIZE);
        upstream.content.addBlob("a", blob);
        const match = { kind: "blob", reference: blob.digest } as const;
        let isOver = false;
        upstream.when(match, () => (isOver ? {} : fault));
        const path = `/v2/a/blobs/${blob.digest}`;
        const get = (headers: Record<string, string>) =>
          mirror.get(path, { ...ALICE, ...headers });
        await Promise.all([
          get({}),
          get({ Range: "bytes=100-200" }),
          mirror.head(path, ALICE),
          mirror.get(path, { Authorization: basic("alice", `wrong ${i}`) }),
          mirror.start(path, {
            headers: ALICE,
            leave: { atByte: 1_000, by: i % 2 === 0 ? "rst" : "fin" },
          }).response,
        ]);
        await mirror.settled();
        // Breakers, bans and remembered absence have expired.
        mirror.clock.advance(3_600_000);
        isOver = true;
        const whole = await get({});
        assert.equal(whole.sha256, blob.digest, JSON.stringify(fault));
        await mirror.settled();
      }
    };
    await round(0);
    const first = await holds(mirror);
    for (let at = 1; at < ROUNDS; at++) await round(at);
    const last = await holds(mirror);
    test.diagnostic(`${JSON.stringify(first)} ${JSON.stringify(last)}`);
    assert.deepEqual(last.partials, []);
    // A leak at each of the 33 faults would exceed these bounds.
    assert.ok(last.files <= first.files + 3, "files");
    assert.ok(last.sockets <= first.sockets + 12, "sockets");
    assert.ok(last.timers <= first.timers + 12, "timers");
    assert.deepEqual(warnings, []);
  });
});
