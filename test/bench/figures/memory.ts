import { setTimeout as delay } from "node:timers/promises";
import { type Bar, type Figure, median } from "../figure.ts";
import { blobPath } from "../registry-files.ts";
import { type Rig, warm } from "../rig.ts";
import type { Server } from "../server.ts";

const READERS = 500;
const BLOB_BYTES = 256 * 1024 ** 2;
/** Rate of each reader. */
const READER_BYTES_PER_SECOND = 200_000;
const SETTLE_MS = 2_000;
const READ_MS = 8_000;
const SAMPLE_EVERY_MS = 200;
const MIB = 1024 ** 2;
const KIB = 1024;
/** Allowance for memory before the first reader. */
const BASE_BYTES = 100 * MIB;

/** Returns the maximum resident memory while slow readers read. */
async function mostWithReaders(
  rig: Rig,
  server: Server,
  path: string,
): Promise<number> {
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, server.rssBytes());
  }, SAMPLE_EVERY_MS);
  try {
    await rig.drain.read(server, {
      paths: [path],
      connections: READERS,
      requestsEach: 1,
      durationMs: READ_MS,
      bytesPerSecond: READER_BYTES_PER_SECOND,
    });
  } finally {
    clearInterval(timer);
  }
  return most;
}

function perReader(text: string, bytes: number): Bar {
  return {
    text,
    value: (bytes - BASE_BYTES) / READERS / KIB,
    demand: "at most",
    bar: 320,
    aim: 128,
    unit: "KiB",
  };
}

export const memory: Figure = {
  name: "memory",
  title: `Resident memory: idle, and ${READERS} slow readers of one blob of 256 MiB`,
  commands: [],
  async run(rig) {
    const hit = await rig.files.addBlob("memory-hit", BLOB_BYTES);
    const fill = await rig.files.addBlob("memory-fill", BLOB_BYTES);
    const { origin } = await rig.startUpstream();
    const root = await rig.folder("root");
    const filled = await rig.startEntrepot({ origin, root });
    await warm(filled, blobPath(hit));
    await filled.stop();
    // A new process for each load, so that memory of an earlier load is not counted.
    const entrepot = await rig.startEntrepot({ origin, root });
    const other = await rig.startEntrepot({ origin });
    const registry = await rig.startRegistryProxy(origin);
    await delay(SETTLE_MS);
    const idle = [entrepot.rssBytes()];
    const registryIdle = [registry.rssBytes()];
    const onHit = [await mostWithReaders(rig, entrepot, blobPath(hit))];
    const onFill = [await mostWithReaders(rig, other, blobPath(fill))];
    await warm(registry, blobPath(hit));
    const registryOnHit = [await mostWithReaders(rig, registry, blobPath(hit))];
    const unit = "bytes";
    const ours = "Entrepot";
    const theirs = "docker-registry";
    return {
      measures: [
        { contestant: ours, what: "idle", unit, samples: idle },
        { contestant: ours, what: "readers of a hit", unit, samples: onHit },
        { contestant: ours, what: "readers of a fill", unit, samples: onFill },
        { contestant: theirs, what: "idle", unit, samples: registryIdle },
        {
          contestant: theirs,
          what: "readers of a hit",
          unit,
          samples: registryOnHit,
        },
      ],
      bars: [
        {
          text: "idle",
          value: median(idle) / MIB,
          demand: "at most",
          bar: 100,
          aim: 70,
          unit: "MiB",
        },
        perReader("above 100 MiB, a reader of a hit", median(onHit)),
        perReader("above 100 MiB, a reader of a fill", median(onFill)),
      ],
    };
  },
};
