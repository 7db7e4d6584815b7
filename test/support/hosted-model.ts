import type { ChildDescriptor } from "../../src/oci/descriptor.ts";
import type { Digest } from "../../src/oci/digest.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import { parseUploadId } from "../../src/storage/blob-store.ts";
import type { HostedManifestRecord } from "../../src/storage/hosted-index.ts";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import {
  child,
  keyOf,
  layer,
  named,
  tag,
} from "../contract/metadata-index-contract.ts";
import type { FakeClock } from "./fake-clock.ts";

const HOSTED = [
  keyOf("local", "a"),
  keyOf("local", "b"),
  keyOf("corp", "a"),
] as const;
const MIRRORED = [
  keyOf("docker.io", "library/a"),
  keyOf("quay.io", "b"),
] as const;
const TAGS = ["1", "2", "v1"].map(tag);
const BLOBS = ["p", "q", "r", "s"];
const NOTHING: ReadonlySet<Digest> = new Set();

/** What each manifest names. */
const MANIFESTS: Readonly<
  Record<string, { children: ChildDescriptor[]; subject?: string }>
> = {
  plain: { children: [layer("p")] },
  both: { children: [layer("p"), layer("q")] },
  foreign: { children: [layer("r"), layer("s", { isForeign: true })] },
  list: { children: [child("plain"), child("both")] },
  top: { children: [child("list")] },
  signature: { children: [layer("q")], subject: "plain" },
  proof: { children: [], subject: "signature" },
};
const NAMES = [...BLOBS, ...Object.keys(MANIFESTS)];

/** An operation with its parameters chosen, to run on any implementation. */
export interface Operation {
  readonly text: string;
  readonly run: (index: MetadataIndex) => Promise<unknown>;
}

/** Chooses operations on few names, so that they meet each other. */
export class HostedModel {
  readonly #random: () => number;
  readonly #clock: FakeClock;

  constructor(random: () => number, clock: FakeClock) {
    this.#random = random;
    this.#clock = clock;
  }

  next(): Operation {
    this.#clock.advance(1 + Math.floor(this.#random() * 5));
    const choices: readonly (readonly [number, () => Operation])[] = [
      [20, () => this.#upload()],
      [12, () => this.#mount()],
      [8, () => this.#claim()],
      [4, () => this.#unlink()],
      [30, () => this.#put()],
      [8, () => this.#deleteTag()],
      [10, () => this.#deleteManifest()],
      [10, () => this.#collect()],
      [8, () => this.#purge()],
      [8, () => this.#pull()],
      [6, () => this.#evict()],
      [3, () => this.#lose()],
      [3, () => this.#adopt()],
      [4, () => this.#pin()],
      [3, () => this.#use()],
      [3, () => this.#session()],
      [2, () => this.#dropUnrooted()],
    ];
    const sum = choices.reduce((total, [weight]) => total + weight, 0);
    let at = this.#random() * sum;
    for (const [weight, choose] of choices) {
      at -= weight;
      if (at < 0) return choose();
    }
    return this.#put();
  }

  #upload(): Operation {
    const [key, text] = [this.#pick(HOSTED), this.#pick(NAMES)];
    const [quota, storedAtMs] = [this.#quota(), this.#clock.nowMs()];
    return {
      text: `upload ${text} to ${pathOf(key)}, quota ${quota.maxBytes}`,
      run: (index) =>
        index.recordHostedBlob(
          key,
          { digest: named(text), sizeBytes: sizeOf(text), storedAtMs },
          quota,
        ),
    };
  }

  #mount(): Operation {
    const [key, text] = [this.#pick(HOSTED), this.#pick(NAMES)];
    const from = this.#pick([...HOSTED, ...MIRRORED]);
    const [quota, atMs] = [this.#quota(), this.#clock.nowMs()];
    return {
      text: `mount ${text} from ${pathOf(from)} in ${pathOf(key)}`,
      run: (index) =>
        index.mountHostedBlob(key, named(text), from, atMs, quota),
    };
  }

  #claim(): Operation {
    const [key, text] = [this.#pick(HOSTED), this.#pick(NAMES)];
    const atMs = this.#clock.nowMs();
    return {
      text: `claim ${text} of ${pathOf(key)}`,
      run: (index) => index.claimHostedBlob(key, named(text), atMs),
    };
  }

  #unlink(): Operation {
    const [key, text] = [this.#pick(HOSTED), this.#pick(NAMES)];
    return {
      text: `unlink ${text} of ${pathOf(key)}`,
      run: async (index) =>
        sameTag(await index.unlinkHostedBlob(key, named(text), isImmutable)),
    };
  }

  #put(): Operation {
    const key = this.#pick(HOSTED);
    const text = this.#pick(Object.keys(MANIFESTS));
    const tags = TAGS.filter(() => this.#random() < 0.3);
    const record = recordOf(text, this.#clock.nowMs());
    const conditions = { quota: this.#quota(), isImmutable };
    return {
      text: `put ${text} in ${pathOf(key)} as ${tags.join(", ")}, quota ${conditions.quota.maxBytes}`,
      run: (index) => index.putHostedManifest(key, record, tags, conditions),
    };
  }

  #deleteTag(): Operation {
    const [key, name] = [this.#pick(HOSTED), this.#pick(TAGS)];
    const isStrict = this.#random() < 0.3;
    return {
      text: `delete ${pathOf(key)}:${name}`,
      run: async (index) => {
        const rows = await index.listHostedTags(key, 9, undefined);
        return index.deleteHostedTag(
          key,
          name,
          isImmutable,
          isStrict ? rows.at(0) : undefined,
        );
      },
    };
  }

  #deleteManifest(): Operation {
    const key = this.#pick(HOSTED);
    const text = this.#pick(Object.keys(MANIFESTS));
    const isForced = this.#random() < 0.5;
    const onlyIf =
      this.#random() < 0.2 ? { untaggedAtMs: this.#clock.nowMs() } : undefined;
    return {
      text: `delete ${text} of ${pathOf(key)}`,
      run: async (index) =>
        sameTag(
          await index.deleteHostedManifest(
            key,
            named(text),
            isForced ? () => false : isImmutable,
            onlyIf,
          ),
        ),
    };
  }

  #collect(): Operation {
    const beforeMs = this.#clock.nowMs() - Math.floor(this.#random() * 60);
    return {
      text: `collect, claimed before ${beforeMs}`,
      run: async (index) => {
        const preview = await index.previewCollection(beforeMs, 1_000);
        const step = await index.dropUnneededLinks(beforeMs, 1_000);
        return { preview: sorted(preview), step };
      },
    };
  }

  #purge(): Operation {
    const isRemoved = this.#random() < 0.7;
    return {
      text: isRemoved ? "purge" : "fail to purge",
      run: async (index) => {
        const all: unknown[] = [];
        for (;;) {
          const found = await index.listCondemned(1_000, NOTHING);
          if (found.length === 0) return all;
          all.push(sorted(found));
          const digests = found.map(({ digest }) => digest);
          if (isRemoved) await index.forgetCondemned(digests);
          else {
            await index.releaseCondemned(digests);
            return all;
          }
        }
      },
    };
  }

  /** A mirrored pull stores a manifest and its layers. */
  #pull(): Operation {
    const key = this.#pick(MIRRORED);
    const text = this.#pick(Object.keys(MANIFESTS));
    const [name, atMs] = [this.#pick(TAGS), this.#clock.nowMs()];
    const { children, subject, digest, sizeBytes, mediaType } = recordOf(
      text,
      atMs,
    );
    return {
      text: `pull ${text} as ${pathOf(key)}:${name}`,
      run: async (index) => {
        await index.recordBlob(key, {
          digest,
          sizeBytes,
          storedAtMs: atMs,
          manifest: { mediaType, children, subject },
        });
        await index.putTag(key, name, digest, atMs);
        for (const { digest: each, role } of children) {
          if (role === "manifest") continue;
          await index.recordBlob(key, {
            digest: each,
            sizeBytes: sizeOf(nameOf(each)),
            storedAtMs: atMs,
          });
        }
      },
    };
  }

  #evict(): Operation {
    const key = this.#pick([...MIRRORED, ...MIRRORED, ...HOSTED]);
    const name = this.#pick(TAGS);
    return {
      text: `evict ${pathOf(key)}:${name}`,
      run: (index) => index.dropRoot(key, { kind: "tag", tag: name }),
    };
  }

  #lose(): Operation {
    const text = this.#pick(NAMES);
    return {
      text: `lose ${text}`,
      run: (index) => index.forgetBlob(named(text)),
    };
  }

  #adopt(): Operation {
    const text = this.#pick(NAMES);
    const storedAtMs = this.#clock.nowMs();
    return {
      text: `adopt ${text}`,
      run: async (index) => {
        // As after a crash: only content without a row is adopted.
        if ((await index.getBlob(named(text))) !== undefined) return;
        await index.adoptBlob({
          digest: named(text),
          sizeBytes: sizeOf(text),
          storedAtMs,
        });
      },
    };
  }

  #pin(): Operation {
    const key = this.#pick(HOSTED);
    const reference =
      this.#random() < 0.5
        ? ({ kind: "tag", tag: this.#pick(TAGS) } as const)
        : ({ kind: "digest", digest: named(this.#pick(NAMES)) } as const);
    const isPinned = this.#random() < 0.5;
    return {
      text: `pin ${pathOf(key)} ${JSON.stringify(reference)}: ${String(isPinned)}`,
      run: (index) => index.setPinned(key, reference, isPinned),
    };
  }

  #use(): Operation {
    const [key, name] = [this.#pick(HOSTED), this.#pick(TAGS)];
    const atMs = this.#clock.nowMs();
    return {
      text: `use ${pathOf(key)}:${name}`,
      run: async (index) => {
        index.touchTag(key, name, atMs);
        index.touchManifest(key, named("plain"), atMs);
        await index.settleUses();
      },
    };
  }

  #session(): Operation {
    const id = parseUploadId(
      `upload-000000000000-${Math.floor(this.#random() * 3)}`,
    );
    const [key, atMs] = [this.#pick(HOSTED), this.#clock.nowMs()];
    const isNew = this.#random() < 0.6;
    return {
      text: `${isNew ? "put" : "drop"} session ${id}`,
      run: async (index) => {
        if (id === undefined) return;
        if (!isNew) {
          await index.dropUpload(id);
          return;
        }
        const earlier = await index.getUpload(id);
        await index.putUpload({
          id,
          key: earlier?.key ?? key,
          algorithm: "sha256",
          startedAtMs: atMs,
          touchedAtMs: atMs,
        });
      },
    };
  }

  #dropUnrooted(): Operation {
    return {
      text: "drop unrooted links",
      run: async (index) => {
        while (!(await index.dropUnrooted()).isEnd);
      },
    };
  }

  #quota() {
    const isSmall = this.#random() < 0.2;
    return {
      maxBytes: isSmall ? Math.floor(this.#random() * 3_000) : Infinity,
      reservedBytes: Math.floor(this.#random() * 100),
    };
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)] as T;
  }
}

/** Reads everything that users of the index can see of hosted repositories. */
export async function readHostedState(index: MetadataIndex): Promise<unknown> {
  const repositories: Record<string, unknown> = {};
  for (const key of [...HOSTED, ...MIRRORED]) {
    const links: Record<string, unknown> = {};
    const referrers: Record<string, unknown> = {};
    for (const text of NAMES) {
      const digest = named(text);
      const row = await index.getLinkedBlob(key, digest);
      if (row === undefined) continue;
      const [root, isComplete, list] = await Promise.all([
        index.getRoot(key, { kind: "digest", digest }),
        index.isComplete(key, digest, "repository"),
        index.listHostedReferrers(key, digest, {
          artifactTypes: [],
          limit: 9,
          last: undefined,
        }),
      ]);
      links[text] = { row, root, isComplete };
      if (list.length > 0) referrers[text] = list;
    }
    const tags = await index.listTags(key, 9, undefined);
    repositories[pathOf(key)] = {
      links,
      referrers,
      tags: await Promise.all(tags.map((each) => index.getTag(key, each))),
      hostedTags: await index.listHostedTags(key, 9, undefined),
      untagged: await index.listUntaggedManifests(key, 99, undefined),
    };
  }
  const nodes: Record<string, unknown> = {};
  for (const text of NAMES) {
    const digest = named(text);
    nodes[text] = {
      node: await index.getNode(digest),
      isHosted: await index.isHosted(digest),
      repositories: (await index.listBlobRepositories(digest, 9, undefined))
        .map(pathOf)
        .sort(),
    };
  }
  return {
    repositories,
    nodes,
    registries: await index.listHostedRegistries(),
    local: await index.listHostedRepositories("local", 9, undefined),
    catalog: (await index.listRepositories(99, undefined)).map(pathOf),
    oldest: (await index.listOldestRoots(99, undefined)).roots
      .map((root) => JSON.stringify(root))
      .sort(),
    images: (await index.listImages(99, undefined)).images
      .map((root) => JSON.stringify(root))
      .sort(),
    uploads: await index.listUploads(9, undefined),
    tags: (await index.totals()).tags,
  };
}

/** Which of several immutable tags is reported depends on the order of rows. */
function sameTag(outcome: {
  readonly kind: string;
  readonly tags?: readonly Tag[];
}): unknown {
  return { kind: outcome.kind, tags: outcome.tags };
}

function isImmutable(name: Tag): boolean {
  return name === "v1";
}

function recordOf(text: string, storedAtMs: number): HostedManifestRecord {
  const { children, subject } = MANIFESTS[text] ?? { children: [] };
  return {
    digest: named(text),
    sizeBytes: sizeOf(text),
    storedAtMs,
    mediaType: `application/vnd.oci.image.${text}+json`,
    children,
    subject: subject === undefined ? undefined : named(subject),
    artifactType: `application/${text}`,
    annotations: { name: text },
  };
}

function sizeOf(text: string): number {
  return text.length * 100;
}

function nameOf(digest: Digest): string {
  return NAMES.find((text) => named(text) === digest) ?? "";
}

function sorted(
  blobs: readonly { readonly digest: Digest; readonly sizeBytes: number }[],
): string[] {
  return blobs
    .map(({ digest, sizeBytes }) => `${nameOf(digest)} ${sizeBytes}`)
    .sort();
}

function pathOf(key: RepositoryKey): string {
  return `${key.upstream}/${key.repository}`;
}
