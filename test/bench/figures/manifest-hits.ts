import { alternate, type Figure, ratio } from "../figure.ts";
import { manifestPath, publishFile } from "../registry-files.ts";
import { type Rig, warm } from "../rig.ts";
import type { Server } from "../server.ts";
import { runWrk } from "../wrk.ts";

const CONNECTIONS = 16;
const SECONDS = 2;
/** Load before the first round: V8 compiles only during the first seconds. */
const WARM_UP_SECONDS = 5;

interface Contestants {
  readonly entrepot: Server;
  readonly registry: Server;
  readonly nginx: Server;
  readonly byDigest: string;
  readonly byTag: string;
}

async function start(rig: Rig): Promise<Contestants> {
  const image = await rig.files.addImage("1", 4, 1_000);
  const upstream = await rig.startUpstream();
  const entrepot = await rig.startEntrepot(upstream);
  const registry = await rig.startRegistryProxy(upstream.origin);
  const root = await rig.folder("pages");
  const byDigest = manifestPath(image.manifest.digest);
  const byTag = manifestPath(image.tag);
  publishFile(root, byDigest, image.manifest);
  const nginx = await rig.startNginx({ root });
  for (const server of [entrepot, registry]) {
    await warm(server, byTag);
    await warm(server, byDigest);
  }
  for (const path of [byDigest, byTag]) {
    await rate(rig, entrepot, path, WARM_UP_SECONDS)();
  }
  return { entrepot, registry, nginx, byDigest, byTag };
}

function rate(rig: Rig, server: Server, path: string, seconds = SECONDS) {
  return async (): Promise<number> => {
    const report = await runWrk(rig.dir, {
      url: server.origin + path,
      connections: CONNECTIONS,
      seconds,
    });
    return report.requestsPerSecond;
  };
}

const unit = "requests/s";

export const manifestDigest: Figure = {
  name: "manifest-digest",
  title: `Manifest by digest, hit, ${CONNECTIONS} connections`,
  commands: ["wrk", "nginx"],
  async run(rig) {
    const { entrepot, registry, nginx, byDigest } = await start(rig);
    const samples = await alternate(rig.rounds, {
      entrepot: rate(rig, entrepot, byDigest),
      registry: rate(rig, registry, byDigest),
      nginx: rate(rig, nginx, byDigest),
    });
    const what = "by digest";
    return {
      measures: [
        { contestant: "Entrepot", what, unit, samples: samples.entrepot },
        {
          contestant: "docker-registry",
          what,
          unit,
          samples: samples.registry,
        },
        { contestant: "nginx", what, unit, samples: samples.nginx },
      ],
      bars: [
        {
          text: "÷ docker-registry",
          value: ratio(samples.entrepot, samples.registry),
          demand: "at least",
          bar: 30,
          aim: undefined,
          unit: "×",
        },
        {
          text: "÷ nginx",
          value: ratio(samples.entrepot, samples.nginx),
          demand: "at least",
          bar: 0.6,
          aim: 1,
          unit: "×",
        },
      ],
    };
  },
};

export const manifestTag: Figure = {
  name: "manifest-tag",
  title: `Manifest by tag inside the TTL, ${CONNECTIONS} connections`,
  commands: ["wrk", "nginx"],
  async run(rig) {
    const { entrepot, registry, byDigest, byTag } = await start(rig);
    const samples = await alternate(rig.rounds, {
      byTag: rate(rig, entrepot, byTag),
      registry: rate(rig, registry, byTag),
      byDigest: rate(rig, entrepot, byDigest),
    });
    return {
      measures: [
        {
          contestant: "Entrepot",
          what: "by tag",
          unit,
          samples: samples.byTag,
        },
        {
          contestant: "Entrepot",
          what: "by digest",
          unit,
          samples: samples.byDigest,
        },
        {
          contestant: "docker-registry",
          what: "by tag",
          unit,
          samples: samples.registry,
        },
      ],
      bars: [
        {
          text: "÷ docker-registry",
          value: ratio(samples.byTag, samples.registry),
          demand: "at least",
          bar: 100,
          aim: undefined,
          unit: "×",
        },
        {
          text: "÷ by digest",
          value: ratio(samples.byTag, samples.byDigest),
          demand: "at least",
          bar: 0.95,
          aim: undefined,
          unit: "×",
        },
      ],
    };
  },
};
