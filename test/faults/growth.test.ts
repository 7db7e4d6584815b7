import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, it } from "node:test";
import {
  type LocalStorage,
  openLocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import type { Digest } from "../../src/oci/digest.ts";
import {
  blob,
  keyOf,
  manifestOf,
  named,
  tag,
} from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import {
  buildArtifact,
  buildReferrersIndex,
} from "../support/image-builder.ts";
import { startMirror, upstreamOf } from "../support/mirror-harness.ts";
import { quietLog } from "../support/pulling-mirror.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { soakFactor } from "../support/soak.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { tempDir } from "../support/temp-dir.ts";

/*
 * Growth that clients and upstreams can cause: floods of names, and the files of a storage root.
 */
const MIB = 1024 * 1024;
const KEY = keyOf("registry.example", "a");

function fileBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Returns the bytes of the index with its log. */
function indexBytes(root: string): number {
  const path = join(root, "index.sqlite");
  return fileBytes(path) + fileBytes(`${path}-wal`);
}

/** Polls a condition for at most half a minute. @returns whether it holds */
async function becomes(isSo: () => boolean): Promise<boolean> {
  for (let left = 300; left > 0 && !isSo(); left -= 1) await delay(100);
  return isSo();
}

async function open(
  test: AfterTest,
): Promise<{ cache: LocalStorage; root: string }> {
  const root = join(await tempDir(test), "data");
  const cache = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
  });
  releaseAfter(test, () => cache.close());
  await cache.upkeep.recovered();
  return { cache, root };
}

void describe("a flood", () => {
  void it("of subjects with referrers lists leaves the index small", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const list = buildReferrersIndex(
      Array.from(
        { length: 20 },
        (_, at) =>
          buildArtifact({ seed: `${at}`, artifactType: "application/x" })
            .manifest,
      ),
    );
    upstream.when(
      { kind: "referrers" },
      {
        status: 200,
        body: list.bytes,
        headers: { "content-type": list.mediaType },
      },
    );
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      logLevel: "error",
    });
    const subjects = 20_000 * soakFactor(0.05);
    const atOnce = 20;
    for (let from = 0; from < subjects; from += atOnce) {
      await Promise.all(
        Array.from({ length: atOnce }, async (_, at) => {
          const subject = named(`subject ${from + at}`);
          const got = await mirror.get(`/v2/a/referrers/${subject}`);
          assert.equal(got.status, 200);
        }),
      );
    }
    const stored = await mirror.metric("entrepot_storage_bytes");
    const bytes = indexBytes(mirror.root);
    test.diagnostic(
      `${subjects} subjects: index ${(bytes / MIB).toFixed(1)} MiB, storage_bytes ${stored}`,
    );
    assert.ok(bytes < 2 * MIB, `${bytes} bytes`);
  });

  void it("of writes leaves a log of 1 MiB", async (test) => {
    const { cache, root } = await open(test);
    const log = join(root, "index.sqlite-wal");
    let largest = 0;
    for (let at = 0; at < 100_000 * soakFactor(0.1); at += 1) {
      await cache.index.recordBlob(KEY, blob(named(`blob ${at}`), 1));
      if (at % 100 !== 0) continue;
      largest = Math.max(largest, fileBytes(log));
      // A turn of the event loop lets messages reach the index worker.
      await delay(0);
    }
    const isCut = await becomes(() => fileBytes(log) < 1.1 * MIB);
    test.diagnostic(
      `log ${(largest / MIB).toFixed(1)} MiB at most, then ${(fileBytes(log) / MIB).toFixed(1)} MiB; index ${(fileBytes(join(root, "index.sqlite")) / MIB).toFixed(1)} MiB`,
    );
    assert.ok(isCut);
  });

  void it("of moved tags leaves a journal of twice the necessary size", async (test) => {
    const { cache, root } = await open(test);
    const { index } = cache;
    const journal = join(root, "roots.jsonl");
    const digests: readonly Digest[] = [named("one"), named("two")];
    for (const digest of digests) {
      await index.recordBlob(KEY, manifestOf(digest, []));
    }
    const tags = 1_500;
    const rounds = 50 * soakFactor(0.2);
    let largest = 0;
    let oneRound = 0;
    for (let round = 0; round < rounds; round += 1) {
      const digest = digests[round % 2];
      assert.ok(digest !== undefined);
      for (let at = 0; at < tags; at += 1) {
        await index.putTag(KEY, tag(`tag-${at}`), digest, round + 1);
        if (at % 200 === 0) await delay(0);
      }
      // Batches are written after a second; two moves of a tag within one count once.
      await delay(1_200);
      largest = Math.max(largest, fileBytes(journal));
      if (round === 0) oneRound = largest;
    }
    const limit = 2 * oneRound + MIB;
    const isSmall = await becomes(() => fileBytes(journal) < limit);
    test.diagnostic(
      `${tags} tags, ${rounds} rounds: journal ${(largest / MIB).toFixed(1)} MiB at most, at the end ${(fileBytes(journal) / MIB).toFixed(1)} MiB, a line a tag ${(oneRound / MIB).toFixed(1)} MiB`,
    );
    assert.ok(isSmall && largest < 3 * oneRound + MIB);
  });
});
