import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import {
  alternate,
  type Figure,
  type FigureResult,
  type Measure,
  ratio,
} from "../figure.ts";
import { newImage, Pusher } from "../push.ts";
import type { Rig } from "../rig.ts";

/** A median of fewer has the disk's mood in it. */
const LEAST_ROUNDS = 5;
const MIB = 1024 ** 2;
/** How long the space of a deleted image may take to come back. */
const MAX_COLLECTION_MS = 90_000;

interface Shape {
  readonly layers: number;
  readonly layerBytes: number;
}

/** Both acknowledge a blob only after its bytes are synced to the disk. */
async function compare(rig: Rig, shape: Shape): Promise<FigureResult> {
  // The first round is not counted: each server compiles, or grows its heap, in it.
  const rounds = Math.max(LEAST_ROUNDS, rig.rounds) + 1;
  const entrepot = await rig.startEntrepot({
    config: { upstreams: {}, hosted: { local: { default: true } } },
  });
  const registry = await rig.startRegistry();
  const bytes = shape.layers * shape.layerBytes;
  const cpu = { entrepot: [] as number[], registry: [] as number[] };
  const push = (server: typeof entrepot, name: keyof typeof cpu) => {
    const pusher = new Pusher(server, "bench/pushed");
    rig.onClose(() => pusher.close());
    return async (round: number): Promise<number> => {
      const image = newImage(`r${round}`, shape.layers, shape.layerBytes);
      await rig.prepareTurn();
      const before = server.cpuSeconds();
      const startMs = performance.now();
      await pusher.push(image);
      const seconds = (performance.now() - startMs) / 1000;
      cpu[name].push(((server.cpuSeconds() - before) * 1024 * MIB) / bytes);
      // So that the disk does not fill up.
      await pusher.delete(image);
      return seconds;
    };
  };
  const samples = await alternate(rounds, {
    entrepot: push(entrepot, "entrepot"),
    registry: push(registry, "registry"),
  });
  const ours = samples.entrepot.slice(1);
  const theirs = samples.registry.slice(1);
  const unit = "seconds";
  const what = "push";
  return {
    measures: [
      { contestant: "Entrepot", what, unit, samples: ours },
      { contestant: "docker-registry", what, unit, samples: theirs },
      processor("Entrepot", cpu.entrepot.slice(1)),
      processor("docker-registry", cpu.registry.slice(1)),
    ],
    bars: [
      {
        text: "÷ docker-registry",
        value: ratio(ours, theirs),
        demand: "at most",
        bar: 1.05,
        aim: 1,
        unit: "×",
      },
    ],
  };
}

function processor(contestant: string, samples: readonly number[]): Measure {
  return { contestant, what: "processor", unit: "CPU s/GiB", samples };
}

export const pushLayers: Figure = {
  name: "push-20x5m",
  title: "Push of an image of 20 × 5 MiB",
  commands: [],
  run: async (rig) => compare(rig, { layers: 20, layerBytes: 5 * MIB }),
};

export const pushLarge: Figure = {
  name: "push-1g",
  title: "Push of an image of one layer of 1 GiB",
  commands: [],
  run: async (rig) => compare(rig, { layers: 1, layerBytes: 1024 * MIB }),
};

export const collection: Figure = {
  name: "collection",
  title: "Deletion of an image of 20 × 5 MiB while serving",
  commands: [],
  async run(rig) {
    const root = await rig.folder("hosted");
    const entrepot = await rig.startEntrepot({
      root,
      config: { upstreams: {}, hosted: { local: { default: true } } },
    });
    const pusher = new Pusher(entrepot, "bench/pushed");
    rig.onClose(() => pusher.close());
    const samples: number[] = [];
    for (let round = 0; round < rig.rounds; round++) {
      const before = await bytesBelow(join(root, "blobs"));
      const image = newImage(`r${round}`, 20, 5 * MIB);
      await pusher.push(image);
      const startMs = performance.now();
      await pusher.delete(image);
      while ((await bytesBelow(join(root, "blobs"))) > before) {
        if (performance.now() - startMs > MAX_COLLECTION_MS) {
          throw new Error("the space of a deleted image did not come back");
        }
        await delay(50);
      }
      samples.push((performance.now() - startMs) / 1000);
    }
    return {
      measures: [
        {
          contestant: "Entrepot",
          what: "until the space is back",
          unit: "seconds",
          samples,
        },
      ],
      bars: [
        {
          text: "until the space is back",
          value: Math.max(...samples) * 1000,
          demand: "at most",
          bar: 60_000,
          aim: undefined,
          unit: "ms",
        },
      ],
      notes: [
        "docker-registry needs a stop, or a time without pushes, for its garbage collection",
      ],
    };
  },
};

async function bytesBelow(folder: string): Promise<number> {
  const entries = await readdir(folder, {
    recursive: true,
    withFileTypes: true,
  }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    // It may be removed at this moment.
    const found = await stat(join(entry.parentPath, entry.name)).catch(
      () => undefined,
    );
    bytes += found?.size ?? 0;
  }
  return bytes;
}
