import { alternate, type Figure, type FigureResult, ratio } from "../figure.ts";
import {
  PullingContainerd,
  PullingPodman,
  type PullingEngine,
} from "../engines.ts";
import { REPOSITORY, type StoredImage } from "../registry-files.ts";
import type { Origin, Rig } from "../rig.ts";

const LAYERS = 20;
const LAYER_BYTES = 5 * 1024 ** 2;
/** A pull, and the removal of the image after it, takes seconds. */
const MAX_ROUNDS = 3;

async function compare(rig: Rig, engine: PullingEngine): Promise<FigureResult> {
  const rounds = Math.min(rig.rounds, MAX_ROUNDS);
  const images: StoredImage[] = [];
  for (let round = 0; round < rounds; round++) {
    images.push(await rig.files.addImage(`r${round}`, LAYERS, LAYER_BYTES));
  }
  const upstream = await rig.startUpstream();
  const entrepot = await rig.startEntrepot(upstream);
  const registry = await rig.startRegistryProxy(upstream.origin);
  const pull = (server: Origin) => async (round: number) => {
    await engine.empty();
    await rig.prepareTurn();
    const startMs = performance.now();
    await engine.pull(
      `${server.host}:${server.port}/${REPOSITORY}:${images[round]?.tag ?? ""}`,
    );
    return (performance.now() - startMs) / 1000;
  };
  // The second pull of a round finds the cache warm and the engine empty.
  const samples = await alternate(rounds, {
    coldEntrepot: pull(entrepot),
    coldRegistry: pull(registry),
    warmEntrepot: pull(entrepot),
    warmRegistry: pull(registry),
  });
  const unit = "seconds";
  const row = (contestant: string, what: string, of: keyof typeof samples) =>
    ({ contestant, what, unit, samples: samples[of] }) as const;
  const demand = { demand: "at most", bar: 1, aim: 0.8, unit: "×" } as const;
  return {
    measures: [
      row("Entrepot", "cold", "coldEntrepot"),
      row("Entrepot", "warm", "warmEntrepot"),
      row("docker-registry", "cold", "coldRegistry"),
      row("docker-registry", "warm", "warmRegistry"),
    ],
    bars: [
      {
        text: "cold ÷ docker-registry",
        value: ratio(samples.coldEntrepot, samples.coldRegistry),
        ...demand,
      },
      {
        text: "warm ÷ docker-registry",
        value: ratio(samples.warmEntrepot, samples.warmRegistry),
        ...demand,
      },
    ],
  };
}

export const podmanPull: Figure = {
  name: "podman",
  title: "podman, image of 20 × 5 MiB",
  commands: ["podman"],
  run: async (rig) =>
    compare(rig, new PullingPodman(await rig.folder("podman"))),
};

export const containerdPull: Figure = {
  name: "containerd",
  title: "containerd, image of 20 × 5 MiB",
  commands: ["containerd", "ctr"],
  async run(rig) {
    const engine = new PullingContainerd(await rig.folder("containerd"));
    rig.onClose(() => engine.stop());
    return compare(rig, engine);
  },
};
