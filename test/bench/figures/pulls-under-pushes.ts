import { alternate, type Figure, median } from "../figure.ts";
import { newImage, Pusher } from "../push.ts";
import type { Origin } from "../rig.ts";

const MIB = 1024 ** 2;
const PULLERS = 8;
const PUSHERS = 4;
const DURATION_MS = 6_000;
const LEAST_ROUNDS = 5;
const REPOSITORY = "bench/pulled";

/** Pulls of a manifest by tag and of its layers, while other clients push and delete images. */
export const pullsUnderPushes: Figure = {
  name: "pulls-under-pushes",
  title: `p99 of pulls by ${PULLERS} clients while ${PUSHERS} clients push`,
  commands: [],
  async run(rig) {
    const entrepot = await rig.startEntrepot({
      config: { upstreams: {}, hosted: { local: { default: true } } },
    });
    const image = newImage("1", 3, MIB);
    const owner = new Pusher(entrepot, REPOSITORY);
    rig.onClose(() => owner.close());
    await owner.push(image);
    const paths = [
      `/v2/${REPOSITORY}/manifests/1`,
      ...image.layers.map(({ digest }) => `/v2/${REPOSITORY}/blobs/${digest}`),
    ];
    const pull = async (): Promise<number> => {
      const { firstByteMs } = await rig.drain.read(entrepot, {
        paths,
        connections: PULLERS,
        requestsEach: Infinity,
        durationMs: DURATION_MS,
      });
      return percentile(firstByteMs, 0.99) / 1000;
    };
    const registry = await rig.startRegistry();
    let pushes = 0;
    const pullWhilePushingTo =
      (server: Origin) => async (): Promise<number> => {
        const over = new AbortController();
        const pushing = Array.from({ length: PUSHERS }, async (_, number) => {
          const pusher = new Pusher(server, `bench/pushed-${number}`);
          for (let count = 0; !over.signal.aborted; count++) {
            const pushed = newImage(`t${count}`, 4, MIB);
            await pusher.push(pushed);
            await pusher.delete(pushed);
            if (server === entrepot) pushes += 1;
          }
          pusher.close();
        });
        const seconds = await pull();
        over.abort();
        await Promise.all(pushing);
        return seconds;
      };
    await pull();
    const rounds = Math.max(LEAST_ROUNDS, rig.rounds);
    const samples = await alternate(rounds, {
      quiet: pull,
      elsewhere: pullWhilePushingTo(registry),
      pushing: pullWhilePushingTo(entrepot),
    });
    const row = (what: string, of: keyof typeof samples) => ({
      contestant: "Entrepot",
      what,
      unit: "seconds" as const,
      samples: samples[of],
    });
    return {
      measures: [
        row("p99 to the first byte, quiet", "quiet"),
        row("p99, pushed to docker-registry meanwhile", "elsewhere"),
        row("p99, pushed to Entrepot meanwhile", "pushing"),
      ],
      bars: [
        {
          text: "pushing ÷ quiet",
          value: median(samples.pushing) / median(samples.quiet),
          demand: "at most",
          bar: 2,
          aim: 1.5,
          unit: "×",
        },
      ],
      notes: [
        "Pushes to docker-registry show what the clients of a push and the disk cost on this machine.",
        `${pushes} images of 4 × 1 MiB were pushed and deleted meanwhile.`,
      ],
    };
  },
};

function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
}
