import { alternate, type Figure, median, ratio } from "../figure.ts";
import { blobPath, type StoredBlob } from "../registry-files.ts";
import type { Origin, Rig } from "../rig.ts";

const BLOB_BYTES = 256 * 1024 ** 2;
const LINK_BYTES_PER_SECOND = 100e6;
/** A first byte takes milliseconds: it is measured often. */
const FIRST_BYTE_ROUNDS = 15;
const FIRST_BYTE_BLOB_BYTES = 1024 ** 2;

/** A blob a round, so that each is cold for whoever is asked for it the first time. */
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

export const coldBlob: Figure = {
  name: "cold-256m",
  title: "Cold blob of 256 MiB, one client, upstream unthrottled",
  commands: [],
  async run(rig) {
    const blobs = await addBlobs(rig, rig.rounds, BLOB_BYTES);
    const upstream = await rig.startUpstream();
    const entrepot = await rig.startEntrepot(upstream);
    const registry = await rig.startRegistryProxy(upstream.origin);
    const samples = await alternate(rig.rounds, {
      direct: timeOf(rig, upstream, blobs),
      entrepot: timeOf(rig, entrepot, blobs),
      registry: timeOf(rig, registry, blobs),
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
    const blobs = await addBlobs(rig, rig.rounds, BLOB_BYTES);
    const link = await rig.startRelay(await rig.startUpstream(), {
      bytesPerSecond: LINK_BYTES_PER_SECOND,
    });
    const entrepot = await rig.startEntrepot(link);
    const samples = await alternate(rig.rounds, {
      direct: timeOf(rig, link, blobs),
      entrepot: timeOf(rig, entrepot, blobs),
    });
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
    // One more, that brings up what a first request ever brings up.
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
