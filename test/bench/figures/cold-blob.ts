import { alternate, type Figure, median, ratio } from "../figure.ts";
import { blobPath, type StoredBlob } from "../registry-files.ts";
import type { Origin, Rig } from "../rig.ts";

const BLOB_BYTES = 256 * 1024 ** 2;
const LINK_BYTES_PER_SECOND = 100e6;
/** The first round is not counted: V8 compiles in it, and servers initialize. */
const UNCOUNTED_ROUNDS = 1;
/** On two busy cores, turns differ much from each other. */
const LEAST_ROUNDS = 5;
/** The first byte takes only milliseconds, so many rounds are affordable. */
const FIRST_BYTE_ROUNDS = 15;
const FIRST_BYTE_BLOB_BYTES = 1024 ** 2;

/** One blob per round, so that it is cold for every contestant. */
function addBlobs(
  rig: Rig,
  count: number,
  sizeBytes: number,
): Promise<StoredBlob[]> {
  return Promise.all(
    Array.from({ length: count }, (_, round) =>
      rig.files.addBlob(`cold-${round}`, sizeBytes),
    ),
  );
}

function readOnce(rig: Rig, server: Origin, blob: StoredBlob | undefined) {
  return rig.drain.read(server, {
    paths: blob === undefined ? [] : [blobPath(blob)],
    connections: 1,
    requestsEach: 1,
  });
}

function timeOf(rig: Rig, server: Origin, blobs: readonly StoredBlob[]) {
  return async (round: number): Promise<number> => {
    await rig.prepareTurn();
    return (await readOnce(rig, server, blobs[round])).seconds;
  };
}

/** Measures the seconds of each contestant for one cold blob per round. */
async function alternateCold<Name extends string>(
  rig: Rig,
  rounds: number,
  contestants: Readonly<Record<Name, Origin>>,
  blobs: readonly StoredBlob[],
): Promise<Record<Name, number[]>> {
  const names = Object.keys(contestants) as Name[];
  const samples = await alternate(
    rounds,
    Object.fromEntries(
      names.map((name) => [name, timeOf(rig, contestants[name], blobs)]),
    ) as Record<Name, (round: number) => Promise<number>>,
  );
  for (const name of names) samples[name].splice(0, UNCOUNTED_ROUNDS);
  return samples;
}

export const coldBlob: Figure = {
  name: "cold-256m",
  title: "Cold blob of 256 MiB, one client, upstream unthrottled",
  commands: [],
  async run(rig) {
    const rounds = Math.max(LEAST_ROUNDS, rig.rounds) + UNCOUNTED_ROUNDS;
    const blobs = await addBlobs(rig, rounds, BLOB_BYTES);
    const upstream = await rig.startUpstream();
    const entrepot = await rig.startEntrepot(upstream);
    const registry = await rig.startRegistryProxy(upstream.origin);
    const samples = await alternateCold(
      rig,
      rounds,
      { direct: upstream, entrepot, registry },
      blobs,
    );
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
        { contestant: "upstream", what, unit, samples: samples.direct },
      ],
      bars: [
        {
          text: "÷ docker-registry",
          value: ratio(samples.entrepot, samples.registry),
          demand: "at most",
          bar: 1.4,
          aim: 1,
          unit: "×",
        },
      ],
      notes: [
        "docker-registry checks the digest after the client has all bytes, Entrepot before it has the last ones",
      ],
    };
  },
};

export const coldBlobLink: Figure = {
  name: "cold-256m-link",
  title: "Cold blob of 256 MiB, upstream at 100 MB/s",
  commands: [],
  async run(rig) {
    const rounds = rig.rounds + UNCOUNTED_ROUNDS;
    const blobs = await addBlobs(rig, rounds, BLOB_BYTES);
    const link = await rig.startRelay(await rig.startUpstream(), {
      bytesPerSecond: LINK_BYTES_PER_SECOND,
    });
    const entrepot = await rig.startEntrepot(link);
    const samples = await alternateCold(
      rig,
      rounds,
      { direct: link, entrepot },
      blobs,
    );
    const unit = "seconds";
    const what = "time";
    return {
      measures: [
        { contestant: "Entrepot", what, unit, samples: samples.entrepot },
        { contestant: "upstream", what, unit, samples: samples.direct },
      ],
      bars: [
        {
          text: "÷ direct",
          value: ratio(samples.entrepot, samples.direct),
          demand: "at most",
          bar: 1.03,
          aim: 1.01,
          unit: "×",
        },
      ],
    };
  },
};

export const firstByte: Figure = {
  name: "first-byte",
  title: "Time to the first byte of a cold blob",
  commands: [],
  async run(rig) {
    // One more round, which is not counted: the first request of a server initializes it.
    const rounds = FIRST_BYTE_ROUNDS + 1;
    const blobs = await addBlobs(rig, rounds, FIRST_BYTE_BLOB_BYTES);
    const upstream = await rig.startUpstream();
    const entrepot = await rig.startEntrepot(upstream);
    const timeTo = (server: Origin) => async (round: number) => {
      const report = await readOnce(rig, server, blobs[round]);
      return (report.firstByteMs[0] ?? Number.NaN) / 1000;
    };
    const samples = await alternate(rounds, {
      direct: timeTo(upstream),
      entrepot: timeTo(entrepot),
    });
    const direct = samples.direct.slice(1);
    const ours = samples.entrepot.slice(1);
    const unit = "seconds";
    const what = "first byte";
    return {
      measures: [
        { contestant: "Entrepot", what, unit, samples: ours },
        { contestant: "upstream", what, unit, samples: direct },
      ],
      bars: [
        {
          text: "− direct",
          value: (median(ours) - median(direct)) * 1000,
          demand: "at most",
          bar: 5,
          aim: 2,
          unit: "ms",
        },
      ],
    };
  },
};
