import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import {
  type Candidate,
  type CandidateNode,
  chooseVictims,
  type ChoiceRules,
  isPartlyPulled,
} from "../../../src/retention/choose-victims.ts";
import type { RootRow } from "../../../src/storage/root-index.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { keyOf, named, tag } from "../../contract/metadata-index-contract.ts";

const alpine = keyOf("docker.io", "library/alpine");

/** Blobs by number; a blob names only blobs with a higher number, so the graph has no cycle. */
interface World {
  readonly blobs: readonly {
    readonly sizeBytes: number;
    readonly isStored: boolean;
    readonly children: readonly number[];
  }[];
  /** Least recently pulled first. */
  readonly roots: readonly {
    readonly blob: number;
    readonly isPinned: boolean;
  }[];
  readonly busy: ReadonlySet<number>;
}

const digests = Array.from({ length: 16 }, (_, i) => named(`blob ${i}`));

function digestAt(blob: number): Digest {
  const digest = digests[blob];
  assert(digest !== undefined);
  return digest;
}

function reachable(world: World, from: readonly number[]): Set<number> {
  const seen = new Set<number>();
  const waiting = [...from];
  for (;;) {
    const blob = waiting.pop();
    if (blob === undefined) return seen;
    if (seen.has(blob) || world.blobs[blob]?.isStored !== true) continue;
    seen.add(blob);
    waiting.push(...(world.blobs[blob]?.children ?? []));
  }
}

/** The rows as the index returns them: everything stored is reachable from a root. */
function candidatesOf(world: World): Candidate[] {
  const live = reachable(
    world,
    world.roots.map(({ blob }) => blob),
  );
  const holders = world.blobs.map(
    (_, blob) =>
      world.roots.filter((root) => root.blob === blob).length +
      [...live].filter((parent) => world.blobs[parent]?.children.includes(blob))
        .length,
  );
  const nodeOf = (blob: number): CandidateNode => {
    const isStored = live.has(blob);
    const { children = [], sizeBytes = 0 } = world.blobs[blob] ?? {};
    return {
      digest: digestAt(blob),
      sizeBytes: isStored ? sizeBytes : undefined,
      isManifest: children.length > 0,
      holders: isStored ? (holders[blob] ?? 0) : 0,
      children: isStored ? children.map(digestAt) : [],
    };
  };
  return world.roots.map(({ blob, isPinned }, at) => {
    const root: RootRow = {
      key: alpine,
      reference: { kind: "tag", tag: tag(`t${at}`) },
      digest: digestAt(blob),
      mediaType: undefined,
      usedAtMs: at,
      isPinned,
    };
    const graph = new Map<Digest, CandidateNode>();
    for (const node of reachable(world, [blob])) {
      graph.set(digestAt(node), nodeOf(node));
      for (const child of world.blobs[node]?.children ?? []) {
        graph.set(digestAt(child), nodeOf(child));
      }
    }
    return { root, graph };
  });
}

/** Computes the same by definition: blobs that no remaining root reaches are removed. */
function modelOf(world: World, goalBytes: number) {
  let remaining = world.roots.map((root, at) => ({ ...root, at }));
  const victims: { at: number; gone: Set<number> }[] = [];
  let freed = 0;
  for (const candidate of remaining.slice()) {
    if (freed >= goalBytes) break;
    if (candidate.isPinned) continue;
    const rest = remaining.filter(({ at }) => at !== candidate.at);
    const before = reachable(
      world,
      remaining.map(({ blob }) => blob),
    );
    const after = reachable(
      world,
      rest.map(({ blob }) => blob),
    );
    const gone = new Set([...before].filter((blob) => !after.has(blob)));
    const children = [...gone].flatMap(
      (blob) => world.blobs[blob]?.children ?? [],
    );
    const isBusy =
      [...gone].some((blob) => world.busy.has(blob)) ||
      children.some(
        (blob) => world.blobs[blob]?.isStored !== true && world.busy.has(blob),
      );
    if (isBusy) continue;
    victims.push({ at: candidate.at, gone });
    for (const blob of gone) freed += world.blobs[blob]?.sizeBytes ?? 0;
    remaining = rest;
  }
  return victims;
}

const worlds: fc.Arbitrary<World> = fc
  .integer({ min: 1, max: digests.length })
  .chain((count) =>
    fc.record({
      blobs: fc.tuple(
        ...Array.from({ length: count }, (_, blob) =>
          fc.record({
            sizeBytes: fc.integer({ min: 0, max: 20 }),
            isStored: fc.boolean().map((value) => value || blob % 3 !== 0),
            children: fc.subarray([...Array(count).keys()].slice(blob + 1), {
              maxLength: Math.min(4, count - blob - 1),
            }),
          }),
        ),
      ),
      roots: fc.array(
        fc.record({
          blob: fc.nat({ max: count - 1 }),
          isPinned: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
        }),
        { maxLength: 10 },
      ),
      busy: fc
        .uniqueArray(fc.nat({ max: count - 1 }), { maxLength: 2 })
        .map((list) => new Set(list)),
    }),
  )
  .map((world) => ({
    ...world,
    roots: world.roots.filter(({ blob }) => world.blobs[blob]?.isStored),
  }));

function rulesOf(world: World, goalBytes: number): ChoiceRules {
  return {
    goalBytes,
    isKept: () => false,
    isBusy: (digest) => world.busy.has(digests.indexOf(digest)),
  };
}

void test("chooses exactly the blobs that the remaining roots do not reach, for any graph, goal and order", () => {
  fc.assert(
    fc.property(
      worlds,
      fc.integer({ min: 0, max: 100 }),
      (world, goalBytes) => {
        const victims = chooseVictims(
          candidatesOf(world),
          rulesOf(world, goalBytes),
        );
        const want = modelOf(world, goalBytes);
        assert.deepEqual(
          victims.map(({ root, digests: gone }) => ({
            at: root.usedAtMs,
            gone: new Set(gone),
          })),
          want.map(({ at, gone }) => ({
            at,
            gone: new Set([...gone].map(digestAt)),
          })),
        );
        for (const { digests: gone, freedBytes } of victims) {
          const sizes = gone.map(
            (digest) => world.blobs[digests.indexOf(digest)]?.sizeBytes ?? 0,
          );
          assert.equal(
            freedBytes,
            sizes.reduce((sum, size) => sum + size, 0),
          );
          assert.equal(new Set(gone).size, gone.length);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

void test("removes a manifest before its children", () => {
  fc.assert(
    fc.property(worlds, (world) => {
      const victims = chooseVictims(candidatesOf(world), {
        ...rulesOf(world, Infinity),
        isBusy: () => false,
      });
      for (const { digests: gone } of victims) {
        for (const [at, digest] of gone.entries()) {
          const parents = world.blobs.flatMap(({ children }, blob) =>
            children.includes(digests.indexOf(digest)) ? [digestAt(blob)] : [],
          );
          for (const parent of parents) {
            assert(gone.indexOf(parent) < at || !gone.includes(parent));
          }
        }
      }
    }),
  );
});

void test("continues a choice where the last one ended", () => {
  fc.assert(
    fc.property(worlds, fc.nat({ max: 9 }), (world, cut) => {
      const candidates = candidatesOf(world);
      const rules = rulesOf(world, Infinity);
      const released = new Map<Digest, number>();
      const inTwo = [
        ...chooseVictims(candidates.slice(0, cut), rules, released),
        ...chooseVictims(candidates.slice(cut), rules, released),
      ];
      assert.deepEqual(inTwo, chooseVictims(candidates, rules));
    }),
  );
});

void test("keeps protected roots with everything that they need", () => {
  fc.assert(
    fc.property(worlds, fc.nat({ max: 9 }), (world, kept) => {
      const victims = chooseVictims(candidatesOf(world), {
        ...rulesOf(world, Infinity),
        isKept: ({ usedAtMs }) => usedAtMs === kept,
      });
      const root = world.roots[kept];
      const needed = reachable(world, root === undefined ? [] : [root.blob]);
      for (const { root: victim, digests: gone } of victims) {
        assert.notEqual(victim.usedAtMs, kept);
        for (const digest of gone) {
          assert(!needed.has(digests.indexOf(digest)));
        }
      }
    }),
  );
});

/** Whether each blob of an image is stored, the config first; undefined: the manifest is absent. */
type ImageState = readonly boolean[] | undefined;

/** An index of images, each with blobs of its own. */
function indexCandidate(images: readonly ImageState[]): Candidate {
  const graph = new Map<Digest, CandidateNode>();
  const add = (
    name: string,
    isStored: boolean,
    isManifest: boolean,
    children: readonly Digest[] = [],
  ): Digest => {
    const digest = named(name);
    const sizeBytes = isStored ? 1 : undefined;
    graph.set(digest, { digest, sizeBytes, isManifest, holders: 1, children });
    return digest;
  };
  const children = images.map((blobs, image) =>
    add(
      `image ${image}`,
      blobs !== undefined,
      true,
      (blobs ?? []).map((isStored, at) =>
        add(`image ${image} blob ${at}`, isStored, false),
      ),
    ),
  );
  const digest = add("index", true, true, children);
  return {
    root: {
      key: alpine,
      reference: { kind: "tag", tag: tag("t") },
      digest,
      mediaType: undefined,
      usedAtMs: 0,
      isPinned: false,
    },
    graph,
  };
}

for (const [name, images, want] of [
  ["an index without any stored child", [undefined, undefined], true],
  [
    "an index with configs only",
    [
      [true, false],
      [true, false],
    ],
    true,
  ],
  ["an index with a complete image", [[true, true], undefined], false],
  [
    "an index with a complete image and configs of others",
    [
      [true, true],
      [true, false, false],
      [true, false],
    ],
    false,
  ],
  [
    "an index with a complete image and a part of another",
    [
      [true, true],
      [true, true, false],
    ],
    true,
  ],
] satisfies readonly (readonly [string, readonly ImageState[], boolean])[]) {
  void test(`${name} is ${want ? "" : "not "}partly pulled`, () => {
    assert.equal(isPartlyPulled(indexCandidate(images)), want);
  });
}
