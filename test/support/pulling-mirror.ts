import assert from "node:assert/strict";
import { StorageError } from "../../src/storage/blob-store.ts";
import { HotManifests } from "../../src/storage/hot-manifests.ts";
import type { LocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { createMirror, type Mirror } from "../../src/mirror/mirror.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import type { Clock } from "../../src/telemetry/clock.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { createMetrics } from "../../src/telemetry/metrics.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { readAll } from "./fill-harness.ts";
import type { ScriptedRegistry } from "./scripted-client.ts";

const ignore = (): void => undefined;
/** Logger that discards every record. */
export const quietLog = {
  trace: ignore,
  debug: ignore,
  info: ignore,
  warn: ignore,
  error: ignore,
  fatal: ignore,
} as unknown as Logger;

/** Creates a mirror on a cache and a registry in this process; no socket is opened. */
export function mirrorOver(
  cache: Pick<LocalStorage, "blobs" | "index">,
  registry: ScriptedRegistry,
  options: { readonly clock: Clock; readonly isOffline?: boolean },
): Mirror {
  return createMirror({
    upstreams: [registry.upstream("docker.io")],
    blobs: cache.blobs,
    index: cache.index,
    hot: new HotManifests(),
    clock: options.clock,
    log: quietLog,
    metrics: createMetrics("test"),
    isOffline: () => options.isOffline ?? false,
  });
}

/**
 * Pulls an image as an engine does and verifies the digest of the manifest and of each blob.
 *
 * @returns the digest that the tag pointed to
 */
export async function pull(
  mirror: Mirror,
  key: RepositoryKey,
  tag: Tag,
): Promise<Digest> {
  const answer = await mirror.getManifest(key, { kind: "tag", tag });
  assert(answer.digest !== undefined);
  assert.equal(digestOf(answer.bytes), answer.digest);
  const parsed = parseManifest(answer.bytes, answer.mediaType);
  assert(parsed.ok);
  for (const { digest } of parsed.children) {
    await pullBlob(mirror, key, digest);
  }
  return answer.digest;
}

/** Attempts for one blob; engines retry too if a body breaks off. */
const TRIES = 3;

/** Pulls and verifies one blob; tries again if the disk fails while the body is read. */
async function pullBlob(
  mirror: Mirror,
  key: RepositoryKey,
  digest: Digest,
): Promise<void> {
  for (let left = TRIES; ; left -= 1) {
    const answer = await mirror.openBlob(key, digest);
    assert.equal(answer.kind, "body");
    if (answer.kind !== "body") return;
    try {
      const { bytes, isBroken } = await readAll(answer.body);
      assert.equal(isBroken, false, `${digest} broke off`);
      assert.equal(digestOf(bytes), digest);
      return;
    } catch (error) {
      if (!(error instanceof StorageError) || left === 1) throw error;
    }
  }
}
