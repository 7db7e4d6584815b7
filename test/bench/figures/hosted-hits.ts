import { alternate, type Bar, type Figure, ratio } from "../figure.ts";
import { newImage, Pusher } from "../push.ts";
import { blobPath, manifestPath } from "../registry-files.ts";
import { warm } from "../rig.ts";
import type { Server } from "../server.ts";
import { runWrk } from "../wrk.ts";

const CONNECTIONS = 16;
const BLOB_CONNECTIONS = 8;
const SECONDS = 2;
const WARM_UP_SECONDS = 5;
const BLOB_BYTES = 5 * 1024 ** 2;
const REPOSITORY = "bench/pushed";

/** What was pushed is served by the same code as what was mirrored, and must not be slower. */
export const hostedHits: Figure = {
  name: "hosted-hits",
  title: `Pulls of hosted content, ${CONNECTIONS} connections`,
  commands: ["wrk"],
  async run(rig) {
    const mirrored = await rig.files.addImage("1", 4, 1_000);
    const blob = await rig.files.addBlob("hit", BLOB_BYTES);
    const entrepot = await rig.startEntrepot({
      origin: (await rig.startUpstream()).origin,
      config: { hosted: { local: {} } },
    });
    const image = newImage("1", 1, BLOB_BYTES);
    const pusher = new Pusher(entrepot, `local/${REPOSITORY}`);
    rig.onClose(() => pusher.close());
    await pusher.push(image);
    const hosted = `/v2/local/${REPOSITORY}`;
    const paths = {
      hostedDigest: `${hosted}/manifests/${image.manifest.digest}`,
      hostedTag: `${hosted}/manifests/1`,
      mirroredDigest: manifestPath(mirrored.manifest.digest),
      mirroredTag: manifestPath(mirrored.tag),
    };
    const hostedBlob = `${hosted}/blobs/${image.layers[0]?.digest ?? ""}`;
    for (const path of Object.values(paths)) {
      await warm(entrepot, path);
      await rate(rig.dir, entrepot, path, WARM_UP_SECONDS)();
    }
    for (const path of [hostedBlob, blobPath(blob)]) await warm(entrepot, path);
    const drain = (path: string) => async (): Promise<number> => {
      const report = await rig.drain.read(entrepot, {
        paths: [path],
        connections: BLOB_CONNECTIONS,
        requestsEach: Infinity,
        durationMs: SECONDS * 1000,
      });
      return report.bytes / report.seconds;
    };
    const samples = await alternate(rig.rounds, {
      hostedDigest: rate(rig.dir, entrepot, paths.hostedDigest),
      mirroredDigest: rate(rig.dir, entrepot, paths.mirroredDigest),
      hostedTag: rate(rig.dir, entrepot, paths.hostedTag),
      mirroredTag: rate(rig.dir, entrepot, paths.mirroredTag),
      hostedBlob: drain(hostedBlob),
      mirroredBlob: drain(blobPath(blob)),
    });
    const row = (what: string, of: keyof typeof samples) => ({
      contestant: "Entrepot",
      what,
      unit: of.endsWith("Blob")
        ? ("bytes/s" as const)
        : ("requests/s" as const),
      samples: samples[of],
    });
    return {
      measures: [
        row("hosted, by digest", "hostedDigest"),
        row("mirrored, by digest", "mirroredDigest"),
        row("hosted, by tag", "hostedTag"),
        row("mirrored, by tag", "mirroredTag"),
        row("hosted blob of 5 MiB", "hostedBlob"),
        row("mirrored blob of 5 MiB", "mirroredBlob"),
      ],
      bars: [
        bar(
          "by digest: hosted ÷ mirrored",
          samples.hostedDigest,
          samples.mirroredDigest,
        ),
        bar(
          "by tag: hosted ÷ mirrored",
          samples.hostedTag,
          samples.mirroredTag,
        ),
        bar(
          "blob of 5 MiB: hosted ÷ mirrored",
          samples.hostedBlob,
          samples.mirroredBlob,
        ),
      ],
    };
  },
};

function rate(dir: string, server: Server, path: string, seconds = SECONDS) {
  return async (): Promise<number> => {
    const report = await runWrk(dir, {
      url: server.origin + path,
      connections: CONNECTIONS,
      seconds,
    });
    return report.requestsPerSecond;
  };
}

function bar(
  text: string,
  ours: readonly number[],
  theirs: readonly number[],
): Bar {
  return {
    text,
    value: ratio(ours, theirs),
    demand: "at least",
    bar: 0.9,
    aim: 1,
    unit: "×",
  };
}
