import { setTimeout as delay } from "node:timers/promises";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import Database from "better-sqlite3";
import { alternate, type Figure, ratio } from "../figure.ts";
import { manifestPath, REPOSITORY } from "../registry-files.ts";
import { type Rig, warm } from "../rig.ts";
import type { Server } from "../server.ts";
import { runWrk } from "../wrk.ts";

const FEW = 1_000;
const MANY = 1_000_000;
/** Number of different blobs that are requested: too many for the caches in front of the index. */
const ASKED = 1_000;
const CONNECTIONS = 16;
const SECONDS = 2;
/** Time for the first start to finish the scan of its root. */
const SETTLE_MS = 2_000;

interface Indexed {
  readonly server: Server;
  /** wrk script that sends conditional requests for the blobs in turn. */
  readonly script: string;
}

/** Starts Entrepot with an index that was filled by SQL: its rows of blobs have no files. */
async function startWithBlobs(
  rig: Rig,
  origin: string,
  count: number,
): Promise<Indexed> {
  const root = await rig.folder("root");
  // The index of a process that ended properly: the next start does not scan it.
  const maker = await rig.startEntrepot({ origin, root });
  await delay(SETTLE_MS);
  await maker.stop();
  const nowMs = Date.now();
  const file = join(root, "index.sqlite");
  const database = new Database(file);
  database.pragma("synchronous = OFF");
  const asked: string[] = [];
  database.transaction(() => {
    const repository = database
      .prepare("INSERT INTO repositories (upstream, name) VALUES (?, ?)")
      .run("docker.io", REPOSITORY).lastInsertRowid;
    const addDigest = database.prepare(
      "INSERT INTO digests (digest) VALUES (?)",
    );
    const addBlob = database.prepare(
      "INSERT INTO blobs (id, size_bytes, stored_at_ms, used_at_ms) VALUES (?, 1000, ?, ?)",
    );
    const addLink = database.prepare(
      "INSERT INTO links (blob_id, repository_id) VALUES (?, ?)",
    );
    // No manifest refers to these blobs: each is a recently used root, so that none is evicted.
    const addRoot = database.prepare("INSERT INTO roots VALUES (?, ?, ?, 0)");
    for (let blob = 0; blob < count; blob++) {
      const digest = randomBytes(32);
      const { lastInsertRowid } = addDigest.run(digest);
      addBlob.run(lastInsertRowid, nowMs, nowMs);
      addLink.run(lastInsertRowid, repository);
      addRoot.run(lastInsertRowid, repository, nowMs);
      if (blob % Math.ceil(count / ASKED) === 0) {
        asked.push(digest.toString("hex"));
      }
    }
  })();
  database.close();
  return {
    // Both off: a verification would find no file, remove the row, and the next request for the blob
    // would be answered with 404.
    server: await rig.startEntrepot({
      origin,
      root,
      config: { scrub: { background: "off", onRead: "off" } },
    }),
    // A 304 has no body and needs the same look-ups as a HEAD, which wrk can't send.
    script: `local asked = {${asked.map((hex) => `"${hex}"`).join(",")}}
local at = 0
request = function()
  at = at % #asked + 1
  local digest = "sha256:" .. asked[at]
  wrk.headers["If-None-Match"] = '"' .. digest .. '"'
  return wrk.format("GET", "/v2/${REPOSITORY}/blobs/" .. digest)
end
`,
  };
}

export const indexSize: Figure = {
  name: "index-size",
  title: "Requests per second with 1 000 000 blobs in the index against 1 000",
  commands: ["wrk"],
  async run(rig) {
    const image = await rig.files.addImage("1", 4, 1_000);
    const upstream = await rig.startUpstream();
    const few = await startWithBlobs(rig, upstream.origin, FEW);
    const many = await startWithBlobs(rig, upstream.origin, MANY);
    const path = manifestPath(image.manifest.digest);
    for (const { server } of [few, many]) await warm(server, path);
    const rate =
      ({ server }: Indexed, script?: string) =>
      async () => {
        const { requestsPerSecond } = await runWrk(rig.dir, {
          url: server.origin + path,
          connections: CONNECTIONS,
          seconds: SECONDS,
          ...(script === undefined ? {} : { script }),
        });
        return requestsPerSecond;
      };
    const samples = await alternate(rig.rounds, {
      few: rate(few),
      many: rate(many),
      turnsFew: rate(few, few.script),
      turnsMany: rate(many, many.script),
    });
    const unit = "requests/s";
    const contestant = "Entrepot";
    return {
      measures: [
        {
          contestant,
          what: "manifest, 1 000 blobs",
          unit,
          samples: samples.few,
        },
        {
          contestant,
          what: "manifest, 1 000 000 blobs",
          unit,
          samples: samples.many,
        },
        {
          contestant,
          what: "1 000 blobs in turn, of 1 000",
          unit,
          samples: samples.turnsFew,
        },
        {
          contestant,
          what: "1 000 blobs in turn, of 1 000 000",
          unit,
          samples: samples.turnsMany,
        },
      ],
      bars: [
        {
          text: "manifest: 1 000 000 ÷ 1 000",
          value: ratio(samples.many, samples.few),
          demand: "at least",
          bar: 0.95,
          aim: 1,
          unit: "×",
        },
        {
          text: "blobs in turn: 1 000 000 ÷ 1 000",
          value: ratio(samples.turnsMany, samples.turnsFew),
          demand: "at least",
          bar: 0.95,
          aim: 1,
          unit: "×",
        },
      ],
    };
  },
};
