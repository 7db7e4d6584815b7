import type { HostedIndex } from "../../hosted-index.ts";
import {
  IndexRestoringError,
  type MetadataIndex,
} from "../../metadata-index.ts";
import type { HostedGate } from "./hosted-gate.ts";

/** The methods of hosted repositories, except those of upload sessions, which no line records. */
const HOSTED_METHODS = [
  "recordHostedBlob",
  "mountHostedBlob",
  "listBlobRepositories",
  "claimHostedBlob",
  "unlinkHostedBlob",
  "putHostedManifest",
  "deleteHostedTag",
  "deleteHostedManifest",
  "listHostedReferrers",
  "listHostedTags",
  "listUntaggedManifests",
  "listHostedRepositories",
  "listHostedRegistries",
  "dropUnneededLinks",
  "previewCollection",
] as const satisfies readonly (keyof HostedIndex)[];

/**
 * Returns an index for requests, whose answers about hosted repositories wait for the replay of the
 * journal. Without a replay no method costs more: it allocates no further promise or object.
 */
export function gateHosted(
  index: MetadataIndex,
  gate: HostedGate,
): MetadataIndex {
  const gated: Partial<MetadataIndex> = {
    getTag: (key, tag) =>
      gate.isOn
        ? readAgain(gate, key.upstream, () => index.getTag(key, tag))
        : index.getTag(key, tag),
    getLinkedBlob: (key, digest) =>
      gate.isOn
        ? readAgain(gate, key.upstream, () => index.getLinkedBlob(key, digest))
        : index.getLinkedBlob(key, digest),
    getRoot: (key, reference) =>
      gate.isOn
        ? readAgain(gate, key.upstream, () => index.getRoot(key, reference))
        : index.getRoot(key, reference),
    listTags: (key, limit, last) =>
      gate.isOn
        ? gate
            .pass(key.upstream, false)
            .then(() => index.listTags(key, limit, last))
        : index.listTags(key, limit, last),
    listRepositories: (limit, last) =>
      gate.isOn
        ? gate.passAny().then(() => index.listRepositories(limit, last))
        : index.listRepositories(limit, last),
    getBlob: async (digest) => {
      const row = await index.getBlob(digest);
      // Bytes without a row may be removed, and a restored manifest may need them.
      if (row === undefined && gate.mayRestore) throw new IndexRestoringError();
      return row;
    },
    // The blob's files are kept during a replay, even if the index can't be written.
    isHosted: async (digest) =>
      gate.mayRestore || (await index.isHosted(digest)),
    // An older index may condemn blobs that the journal names.
    listCondemned: (limit, except) =>
      gate.isOn ? Promise.resolve([]) : index.listCondemned(limit, except),
  };
  for (const method of HOSTED_METHODS) {
    const call = (...input: readonly unknown[]): Promise<unknown> =>
      Reflect.apply(index[method], index, input) as Promise<unknown>;
    Object.assign(gated, {
      [method]: (...input: readonly unknown[]) =>
        gate.isOn
          ? gate.passHosted().then(() => call(...input))
          : call(...input),
    });
  }
  return Object.setPrototypeOf(gated, index) as MetadataIndex;
}

async function readAgain<T>(
  gate: HostedGate,
  registry: string,
  read: () => Promise<T>,
): Promise<T> {
  const row = await read();
  const hasWaited = await gate.pass(registry, row !== undefined);
  return hasWaited ? read() : row;
}
