import assert from "node:assert/strict";
import type { TestMirror } from "./mirror-harness.ts";
import type { RawResponse } from "./raw-client.ts";

interface PulledManifest {
  readonly manifests?: readonly { readonly digest: string }[];
  readonly config?: { readonly digest: string };
  readonly layers?: readonly { readonly digest: string }[];
}

/**
 * Pulls the first platform of an image as containerd does: HEAD of the tag, then everything by its
 * digest, blobs side by side. All that comes is hashed; when it ends all is in the cache.
 *
 * @param repository as it stands in the path, with what leads to its upstream
 * @returns every answer, the HEAD first
 */
export async function pullImage(
  mirror: TestMirror,
  repository: string,
  tag: string,
): Promise<readonly RawResponse[]> {
  const head = await mirror.head(`/v2/${repository}/manifests/${tag}`);
  assert.equal(head.status, 200, "HEAD of the tag");
  const answers = [head];
  const manifest = async (digest: string): Promise<PulledManifest> => {
    const got = await mirror.get(`/v2/${repository}/manifests/${digest}`);
    assert.deepEqual([got.status, got.sha256], [200, digest]);
    answers.push(got);
    return JSON.parse(got.body.toString()) as PulledManifest;
  };
  let image = await manifest(head.headers["docker-content-digest"] ?? "");
  const [platform] = image.manifests ?? [];
  if (platform !== undefined) image = await manifest(platform.digest);
  const blobs = [image.config, ...(image.layers ?? [])];
  await Promise.all(
    blobs.map(async (blob) => {
      const digest = blob?.digest ?? "";
      const got = await mirror.get(`/v2/${repository}/blobs/${digest}`);
      assert.deepEqual(
        [got.status, got.end, got.sha256],
        [200, "complete", digest],
      );
      answers.push(got);
    }),
  );
  await mirror.settled();
  return answers;
}
