import { alternate, type Figure, ratio } from "../figure.ts";
import { manifestPath } from "../registry-files.ts";
import { type Origin, warm } from "../rig.ts";

const LATENCY_MS = 100;
const ROUNDS = 9;

export const tagLatency: Figure = {
  name: "tag-latency",
  title: `Warm tag pull with ${LATENCY_MS} ms to the upstream`,
  commands: [],
  async run(rig) {
    const image = await rig.files.addImage("1", 4, 1_000);
    const upstream = await rig.startUpstream();
    const far = { latencyMs: LATENCY_MS };
    const ourLink = await rig.startRelay(upstream, far);
    const theirLink = await rig.startRelay(upstream, far);
    const entrepot = await rig.startEntrepot(ourLink);
    const registry = await rig.startRegistryProxy(theirLink.origin);
    const path = manifestPath(image.tag);
    for (const server of [entrepot, registry]) await warm(server, path);
    const before = ourLink.carriedBytes;
    const time = (server: Origin) => async (): Promise<number> => {
      const startMs = performance.now();
      await warm(server, path);
      return (performance.now() - startMs) / 1000;
    };
    const samples = await alternate(ROUNDS, {
      entrepot: time(entrepot),
      registry: time(registry),
    });
    const unit = "seconds";
    const what = "time";
    return {
      measures: [
        { contestant: "Entrepot", what, unit, samples: samples.entrepot },
        {
          contestant: "docker-registry",
          what,
          unit,
          samples: samples.registry,
        },
      ],
      bars: [
        {
          text: "÷ docker-registry",
          value: ratio(samples.entrepot, samples.registry),
          demand: "at most",
          bar: 0.1,
          aim: undefined,
          unit: "×",
        },
        {
          text: "upstream requests",
          value: ourLink.carriedBytes - before === 0 ? 0 : ROUNDS,
          demand: "at most",
          bar: 0,
          aim: undefined,
          unit: "requests",
        },
      ],
    };
  },
};
