/*
 * Compares policies for the choice of the image to evict: replays traces of pulls against each of
 * them, and prints the table of test/bench/eviction-policies.md:
 *
 *     node test/bench/eviction-trace.ts
 *
 * An image consists of a base layer that its family shares, a middle layer that the versions of its
 * repository share, and layers of its own. Sizes are log-normal with the median and the spread of
 * layers in public registries. Every trace has the same seed, so that each policy receives the same
 * pulls.
 */
import { pathToFileURL } from "node:url";
import { seededRandom, zipf } from "../support/random.ts";

const SEED = 4;
const REPOSITORIES = 300;
const FAMILIES = 25;
const PULLS = 60_000;
const MIB = 1024 ** 2;

interface Blob {
  readonly id: number;
  readonly sizeBytes: number;
}

interface Image {
  readonly id: number;
  readonly blobs: readonly Blob[];
  readonly sizeBytes: number;
}

/** A sequence of pulls. */
interface Trace {
  readonly name: string;
  readonly pulls: readonly Image[];
  /** Sum of the sizes of all pulled blobs, each counted once. */
  readonly distinctBytes: number;
}

interface Held {
  readonly image: Image;
  /** Position of its last pull in the trace. */
  usedAt: number;
  pulls: number;
  /** Value that the policy stores for the image. */
  credit: number;
}

/** Evicts the image with the lowest score first. */
interface Policy {
  readonly name: string;
  score(held: Held, now: number, freedBytes: () => number): number;
  /** Called for each evicted entry. */
  onEvicted?(held: Held): void;
  onPulled?(held: Held, freedBytes: () => number): void;
}

/** Greedy-Dual: the level rises to the credit of each evicted image and is added to new credits. */
function greedyDual(name: string, usesPulls: boolean): Policy {
  let level = 0;
  return {
    name,
    score: (held) => held.credit,
    onEvicted: (held) => {
      level = Math.max(level, held.credit);
    },
    onPulled: (held, freedBytes) => {
      const perByte = MIB / Math.max(1, freedBytes());
      held.credit = level + perByte * (usesPulls ? held.pulls : 1);
    },
  };
}

function policies(): readonly Policy[] {
  return [
    { name: "recency", score: (held) => held.usedAt },
    { name: "first in, first out", score: (held) => held.image.id },
    { name: "least often", score: (held) => held.pulls },
    {
      name: "age x size",
      score: (held, now, freedBytes) => -(now - held.usedAt) * freedBytes(),
    },
    {
      name: "age x root of size",
      score: (held, now, freedBytes) =>
        -(now - held.usedAt) * Math.sqrt(freedBytes()),
    },
    greedyDual("greedy dual, size", false),
    greedyDual("greedy dual, size and frequency", true),
  ];
}

interface Workload {
  readonly name: string;
  /** Number of pulls between two moves of a tag. */
  readonly moveEvery: number;
  /** Bursts of pulls of images that are not pulled again, as by a scanner: length and period. */
  readonly scan:
    { readonly length: number; readonly every: number } | undefined;
  readonly exponent: number;
}

const WORKLOADS: readonly Workload[] = [
  { name: "steady", moveEvery: Infinity, scan: undefined, exponent: 0.9 },
  { name: "tags move", moveEvery: 20, scan: undefined, exponent: 0.9 },
  {
    name: "tags move, and a scan",
    moveEvery: 20,
    scan: { length: 400, every: 6_000 },
    exponent: 0.9,
  },
];

/** Sizes of the cache, as shares of the distinct bytes. */
const CACHE_SHARES = [0.05, 0.15, 0.4];

function buildTrace(workload: Workload): Trace {
  const random = seededRandom(SEED);
  let lastBlob = 0;
  let lastImage = 0;
  let distinctBytes = 0;
  const layer = (median: number): Blob => {
    // Box-Muller; two thirds of the layers are within a factor of five of the median.
    const normal =
      Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const sizeBytes = Math.ceil(
      Math.min(median * Math.exp(1.6 * normal), 2_000 * MIB),
    );
    distinctBytes += sizeBytes;
    lastBlob++;
    return { id: lastBlob, sizeBytes };
  };
  const bases = Array.from({ length: FAMILIES }, () => layer(25 * MIB));
  const build = (shared: readonly Blob[]): Image => {
    const own = Array.from({ length: 1 + Math.floor(random() * 5) }, () =>
      layer(3 * MIB),
    );
    const blobs = [...shared, ...own];
    lastImage++;
    return {
      id: lastImage,
      blobs,
      sizeBytes: blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    };
  };
  const drawBase = zipf(FAMILIES, 1, random);
  const sharedOf = Array.from({ length: REPOSITORIES }, () => {
    const base = bases[drawBase()];
    return base === undefined ? [] : [base, layer(8 * MIB)];
  });
  const current = sharedOf.map(build);
  const draw = zipf(REPOSITORIES, workload.exponent, random);
  const pulls: Image[] = [];
  while (pulls.length < PULLS) {
    if (
      workload.scan !== undefined &&
      pulls.length % workload.scan.every === 0
    ) {
      for (let i = 0; i < workload.scan.length; i++) {
        pulls.push(build(sharedOf[Math.floor(random() * REPOSITORIES)] ?? []));
      }
    }
    const at = draw();
    if (random() < 1 / workload.moveEvery) {
      current[at] = build(sharedOf[at] ?? []);
    }
    const image = current[at];
    if (image !== undefined) pulls.push(image);
  }
  return { name: workload.name, pulls, distinctBytes };
}

interface Result {
  readonly byteHits: number;
  /** Share of pulls for which nothing was fetched. */
  readonly imageHits: number;
}

/** Fetches missing blobs; then evicts images, with blobs that no other needs, until the rest fits. */
function replay(trace: Trace, policy: Policy, cacheBytes: number): Result {
  const held = new Map<number, Held>();
  const holders = new Map<number, number>();
  let storedBytes = 0;
  let [wantedBytes, hitBytes, hitImages] = [0, 0, 0];
  const freedBy = ({ image }: Held): number =>
    image.blobs.reduce(
      (sum, { id, sizeBytes }) =>
        holders.get(id) === 1 ? sum + sizeBytes : sum,
      0,
    );
  for (const [now, image] of trace.pulls.entries()) {
    let missing = 0;
    for (const { id, sizeBytes } of image.blobs) {
      if (!holders.has(id)) missing += sizeBytes;
    }
    wantedBytes += image.sizeBytes;
    hitBytes += image.sizeBytes - missing;
    if (missing === 0) hitImages++;
    let entry = held.get(image.id);
    if (entry === undefined) {
      entry = { image, usedAt: now, pulls: 0, credit: 0 };
      held.set(image.id, entry);
      for (const { id } of image.blobs) {
        holders.set(id, (holders.get(id) ?? 0) + 1);
      }
      storedBytes += missing;
    }
    entry.usedAt = now;
    entry.pulls++;
    const pulled = entry;
    policy.onPulled?.(pulled, () => freedBy(pulled));
    while (storedBytes > cacheBytes && held.size > 1) {
      let victim: Held | undefined;
      let lowest = Infinity;
      for (const candidate of held.values()) {
        if (candidate === pulled) continue;
        const score = policy.score(candidate, now, () => freedBy(candidate));
        if (score < lowest) [victim, lowest] = [candidate, score];
      }
      if (victim === undefined) break;
      policy.onEvicted?.(victim);
      storedBytes -= freedBy(victim);
      held.delete(victim.image.id);
      for (const { id } of victim.image.blobs) {
        const left = (holders.get(id) ?? 1) - 1;
        if (left === 0) holders.delete(id);
        else holders.set(id, left);
      }
    }
  }
  return {
    byteHits: hitBytes / wantedBytes,
    imageHits: hitImages / trace.pulls.length,
  };
}

function percent(share: number): string {
  return (share * 100).toFixed(1);
}

/** Returns the table as Markdown: byte hit ratio, then the share of pulls that fetched nothing. */
export function evictionTable(): string {
  const lines: string[] = [];
  for (const workload of WORKLOADS) {
    const trace = buildTrace(workload);
    lines.push(
      `### ${trace.name}: ${trace.pulls.length} pulls of ${(trace.distinctBytes / 1024 ** 3).toFixed(0)} GiB`,
      "",
      `| goes first | ${CACHE_SHARES.map((share) => `cache of ${share * 100} %`).join(" | ")} |`,
      `|---|${CACHE_SHARES.map(() => "---|").join("")}`,
    );
    for (const at of policies().keys()) {
      const cells = CACHE_SHARES.map((share) => {
        const policy = policies()[at];
        if (policy === undefined) return "";
        const result = replay(trace, policy, trace.distinctBytes * share);
        return `${percent(result.byteHits)} / ${percent(result.imageHits)}`;
      });
      lines.push(`| ${policies()[at]?.name} | ${cells.join(" | ")} |`);
    }
    lines.push("");
  }
  return lines.join("\n");
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  process.stdout.write(`${evictionTable()}\n`);
}
