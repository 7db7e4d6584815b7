import { alternate, type Figure, type FigureResult, ratio } from "../figure.ts";
import { blobPath, type StoredBlob } from "../registry-files.ts";
import type { Origin, Rig } from "../rig.ts";
import type { Relay } from "../relay.ts";

const CLIENTS = 32;
const BLOB_BYTES = 256 * 1024 ** 2;
const LINK_BYTES_PER_SECOND = 200e6;
/** docker-registry takes most of a minute for one round. */
const MAX_LINK_ROUNDS = 2;

/** All clients request the same cold blob simultaneously; a relay counts the upstream's bytes. */
async function compare(
  rig: Rig,
  rounds: number,
  link: { readonly bytesPerSecond?: number },
  demand: { readonly bar: number; readonly aim: number },
): Promise<FigureResult> {
  const blobs: StoredBlob[] = [];
  for (let round = 0; round < rounds; round++) {
    blobs.push(await rig.files.addBlob(`crowd-${round}`, BLOB_BYTES));
  }
  const upstream = await rig.startUpstream();
  const relays = {
    entrepot: await rig.startRelay(upstream, link),
    registry: await rig.startRelay(upstream, link),
  };
  const entrepot = await rig.startEntrepot(relays.entrepot);
  const registry = await rig.startRegistryProxy(relays.registry.origin);
  const received = { entrepot: [] as number[], registry: [] as number[] };
  const time = (server: Origin, relay: Relay, bytes: number[]) => {
    return async (round: number): Promise<number> => {
      await rig.prepareTurn();
      const before = relay.carriedBytes;
      const blob = blobs[round];
      const report = await rig.drain.read(server, {
        paths: blob === undefined ? [] : [blobPath(blob)],
        connections: CLIENTS,
        requestsEach: 1,
      });
      bytes.push(relay.carriedBytes - before);
      return report.seconds;
    };
  };
  const samples = await alternate(rounds, {
    entrepot: time(entrepot, relays.entrepot, received.entrepot),
    registry: time(registry, relays.registry, received.registry),
  });
  const rows = (contestant: string, key: "entrepot" | "registry") => [
    {
      contestant,
      what: "time",
      unit: "seconds" as const,
      samples: samples[key],
    },
    {
      contestant,
      what: "from the upstream",
      unit: "bytes" as const,
      samples: received[key],
    },
  ];
  return {
    measures: [
      ...rows("Entrepot", "entrepot"),
      ...rows("docker-registry", "registry"),
    ],
    bars: [
      {
        text: "÷ docker-registry",
        value: ratio(samples.entrepot, samples.registry),
        demand: "at most",
        ...demand,
        unit: "×",
      },
      {
        text: "upstream bytes ÷ blob",
        // The relay counts headers too; the bar allows a thousandth for them.
        value: Math.max(...received.entrepot) / BLOB_BYTES,
        demand: "at most",
        bar: 1.001,
        aim: undefined,
        unit: "×",
      },
    ],
  };
}

export const coldCrowd: Figure = {
  name: "cold-crowd",
  title: `${CLIENTS} clients, one cold blob of 256 MiB`,
  commands: [],
  run: (rig) => compare(rig, rig.rounds, {}, { bar: 0.6, aim: 0.5 }),
};

export const coldCrowdLink: Figure = {
  name: "cold-crowd-link",
  title: `${CLIENTS} clients, one cold blob of 256 MiB, upstream's link at 200 MB/s`,
  commands: [],
  run: (rig) =>
    compare(
      rig,
      Math.min(rig.rounds, MAX_LINK_ROUNDS),
      { bytesPerSecond: LINK_BYTES_PER_SECOND },
      { bar: 0.1, aim: 0.08 },
    ),
};
