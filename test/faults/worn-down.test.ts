import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { Agent, createServer, request } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { DatabaseSync } from "node:sqlite";
import { basic, writeHtpasswd } from "../support/access.ts";
import { releaseAfter } from "../support/after-test.ts";
import { COLLECTING, collectIn } from "../support/baseline.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { buildImage, seededBlob } from "../support/image-builder.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { soakFactor } from "../support/soak.ts";
import { tempDir } from "../support/temp-dir.ts";

const CLIENT_BYTES = 320 * 1024;
/** Growth of the process that does not depend on the number of clients: buffers, compiled code, threads. */
const FIXED_BYTES = 150_000_000;

const IMAGE = buildImage({ seed: "worn" });
const LONG = seededBlob("long", 8_000_000);
const TAG = "/v2/library/app/manifests/v";

/** Sets the log level to errors: a million lines would fill the memory of this process. */
async function quieten(mirror: ChildMirror, dir: string): Promise<void> {
  const file = join(dir, "entrepot.yaml");
  const config = JSON.parse(await readFile(file, "utf8")) as object;
  await writeFile(file, JSON.stringify({ ...config, log: { level: "error" } }));
  mirror.child.signal("SIGHUP");
}

/** Returns one of many loopback addresses, which stand for clients of a network. */
function addressOf(i: number, net: number): string {
  return `127.${net}.${Math.floor(i / 200) % 200}.${(i % 200) + 1}`;
}

async function open(
  test: TestContext,
  port: number,
  localAddress: string,
): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", localAddress });
  socket.on("error", () => {});
  releaseAfter(test, () => void socket.destroy());
  await once(socket, "connect");
  return socket;
}

interface Answer {
  readonly status: number;
  readonly durationMs: number;
}

function ask(options: {
  readonly port: number;
  readonly path: string;
  readonly agent: Agent;
  readonly headers?: Readonly<Record<string, string>>;
  readonly localAddress?: string;
}): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const beganMs = performance.now();
  request({ host: "127.0.0.1", ...options }, (response) => {
    response.resume();
    response.once("end", () =>
      resolve({
        status: response.statusCode ?? 0,
        durationMs: performance.now() - beganMs,
      }),
    );
    response.once("error", reject);
  })
    .once("error", reject)
    .end();
  return promise;
}

function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * part)] ?? NaN;
}

async function openAll(
  test: TestContext,
  count: number,
  port: number,
  net: number,
): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    const batch = Math.min(100, count - sockets.length);
    const from = sockets.length;
    sockets.push(
      ...(await Promise.all(
        Array.from({ length: batch }, (_, i) =>
          open(test, port, addressOf(from + i, net)),
        ),
      )),
    );
  }
  return sockets;
}

void describe("a mirror under many slow and hostile clients (C3, C4, R4, R6)", () => {
  void it("answers a healthy client's hits, in bounded memory", async (test) => {
    const factor = soakFactor(0.1);
    const idleCount = 5_000 * factor;
    const slowCount = 500 * factor;
    const loginsPerSecond = 500 * factor;
    const seconds = factor === 1 ? 20 : 3;
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", IMAGE, "v");
    upstream.content.addBlob("library/app", LONG);
    const dir = await tempDir(test);
    const mirror = await ChildMirror.start(test, {
      config: {
        ...hubConfig(upstream.origin),
        access: {
          htpasswdFile: await writeHtpasswd(test, { alice: "pw" }),
          anonymous: "none",
        },
      },
      dir,
    });
    await quieten(mirror, dir);
    const { port } = mirror;
    const headers = { Authorization: basic("alice", "pw") };
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const strangers = new Agent({ keepAlive: false, maxSockets: 1_000 });
    releaseAfter(test, () => {
      agent.destroy();
      strangers.destroy();
    });
    const long = `/v2/library/app/blobs/${LONG.digest}`;
    assert.equal((await ask({ port, path: TAG, agent, headers })).status, 200);
    assert.equal((await ask({ port, path: long, agent, headers })).status, 200);
    const before = mirror.child.rssBytes();

    await openAll(test, idleCount, port, 2);
    const slow = await openAll(test, slowCount, port, 3);
    for (const socket of slow) {
      socket.write(
        `GET ${long} HTTP/1.1\r\nHost: x\r\nAuthorization: ${headers.Authorization}\r\n\r\n`,
      );
      // The answer has begun, and the client stops reading.
      await once(socket, "readable");
      socket.read(1);
    }

    const durations: number[] = [];
    const refused = new Map<number, number>();
    const knocks = { isOver: false, count: 0 };
    const wrong = async (): Promise<void> => {
      knocks.count += 1;
      const attempts = knocks.count;
      const { status } = await ask({
        port,
        path: TAG,
        agent: strangers,
        localAddress: addressOf(attempts % 50, 4),
        headers: { Authorization: basic(`user${attempts % 500}`, "wrong") },
      });
      refused.set(status, (refused.get(status) ?? 0) + 1);
    };
    const knocking = (async () => {
      const beganMs = performance.now();
      const pending: Promise<void>[] = [];
      while (!knocks.isOver) {
        const due = ((performance.now() - beganMs) / 1000) * loginsPerSecond;
        for (let i = knocks.count; i < due; i++) pending.push(wrong());
        await delay(10);
      }
      await Promise.all(pending);
    })();
    let peak = 0;
    const endMs = performance.now() + seconds * 1000;
    while (performance.now() < endMs) {
      const { status, durationMs } = await ask({
        port,
        path: TAG,
        agent,
        headers,
      });
      assert.equal(status, 200);
      durations.push(durationMs);
      if (durations.length % 100 === 0) {
        peak = Math.max(peak, mirror.child.rssBytes());
      }
      await delay(2);
    }
    knocks.isOver = true;
    await knocking;
    const growth = Math.max(peak, mirror.child.rssBytes()) - before;
    test.diagnostic(
      `${idleCount} idle, ${slowCount} slow, ${knocks.count} wrong log-ins in ${seconds} s (${JSON.stringify([...refused])}): ` +
        `${durations.length} hits, p50 ${percentile(durations, 0.5).toFixed(2)} ms, p99 ${percentile(durations, 0.99).toFixed(2)} ms, ` +
        `${growth} bytes more resident than the ${before} before`,
    );
    assert.deepEqual(
      [...refused.keys()].filter((status) => status !== 401 && status !== 429),
      [],
    );
    assert.ok(
      growth < FIXED_BYTES + (idleCount + slowCount) * CLIENT_BYTES,
      String(growth),
    );
    // No connection was closed: the limit was not reached.
    assert.equal(slow.filter((socket) => socket.destroyed).length, 0);
  });
});

/** Returns a request with a unique name, of one of the kinds that carry a name. */
function strangePath(i: number): string {
  // Multiplication by an odd number keeps them unique, and not consecutive.
  const number = (i * 2_654_435_761) % 2 ** 32;
  const name = number.toString(36);
  const digest = `sha256:${number.toString(16).padStart(64, "0")}`;
  const kinds = [
    `manifests/t${name}`,
    `manifests/${digest}`,
    `blobs/${digest}`,
    "tags/list",
    `referrers/${digest}`,
  ];
  return `/v2/r${name}/x/${kinds[i % kinds.length]}`;
}

/** Counts the rows of each table of the index. */
function rowsOf({ root }: ChildMirror): (readonly [string, number])[] {
  using index = new DatabaseSync(join(root, "index.sqlite"), {
    readOnly: true,
  });
  const tables = index
    .prepare("select name from sqlite_schema where type = 'table'")
    .all() as { name: string }[];
  return tables.map(({ name }) => {
    const row = index.prepare(`select count(*) n from "${name}"`).get();
    return [name, Number(row?.["n"])] as const;
  });
}

/** Rows of tables that such requests fill, up to a bound: wishes. */
const BOUNDS: ReadonlyMap<string, number> = new Map([["records", 1_000]]);

void describe("requests for names that do not exist (R2, R3)", () => {
  void it("leave memory, index and metrics unchanged", async (test) => {
    const total = Math.round(1_000_000 * soakFactor(0.1));
    const server = createServer((_request, response) => {
      response.writeHead(404, { "Content-Type": "application/json" });
      response.end('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}');
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(test, () => {
      server.closeAllConnections();
      server.close();
    });
    const { port: upstreamPort } = server.address() as AddressInfo;
    const dir = await tempDir(test);
    const mirror = await ChildMirror.start(test, {
      config: {
        ...hubConfig(`http://127.0.0.1:${upstreamPort}`),
      },
      dir,
      nodeArgs: [COLLECTING],
    });
    await quieten(mirror, dir);
    const { port } = mirror;
    const agent = new Agent({ keepAlive: true, maxSockets: 64 });
    releaseAfter(test, () => agent.destroy());
    const statuses = new Map<number, number>();
    let next = 0;
    const run = async (until: number): Promise<void> => {
      await Promise.all(
        Array.from({ length: 64 }, async () => {
          while (next < until) {
            const i = next++;
            const { status } = await ask({ port, path: strangePath(i), agent });
            statuses.set(status, (statuses.get(status) ?? 0) + 1);
          }
        }),
      );
    };
    const seriesOf = async () =>
      (await mirror.metrics())
        .split("\n")
        // Node's own metrics vary.
        .filter((line) => line.startsWith("entrepot_")).length;
    const series: number[] = [];
    const live: number[] = [];
    for (const part of [0.01, 0.1, 0.25, 0.5, 0.75, 1]) {
      await run(total * part);
      series.push(await seriesOf());
      live.push(await collectIn(mirror));
      const rows = rowsOf(mirror).reduce((sum, [, count]) => sum + count, 0);
      test.diagnostic(
        `${next} names: ${series.at(-1)} series, ${rows} rows, ${live.at(-1)} bytes live, ${mirror.child.rssBytes()} resident`,
      );
    }
    const growth = (live.at(-1) ?? 0) - (live.at(3) ?? 0);
    test.diagnostic(
      `${total} names, ${JSON.stringify([...statuses])}: ` +
        `${growth} bytes more live in the second half`,
    );
    // The specification requires an empty list for an unknown subject.
    assert.deepEqual(
      [statuses.get(200), statuses.get(404)],
      [total * 0.2, total * 0.8],
    );
    assert.equal(new Set(series).size, 1, series.join(" "));
    // Resident memory varies by a hundred megabytes of garbage; a leaked name is live memory.
    assert.ok(growth < 8_000_000, String(growth));
    // For example listeners that accumulate on a signal of the process (R11).
    assert.doesNotMatch(mirror.child.output(), /Warning/);
    await mirror.terminate();
    const rows = rowsOf(mirror);
    test.diagnostic(`rows: ${JSON.stringify(rows)}`);
    assert.ok(rows.length > 2);
    assert.ok(
      rows.every(([table, count]) => count <= (BOUNDS.get(table) ?? 5)),
      JSON.stringify(rows),
    );
  });
});
