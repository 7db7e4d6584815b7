import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { createClientAddress } from "../../../../src/http/server/client-address.ts";
import { createConnectionLimits } from "../../../../src/http/server/connection-limits.ts";
import { createRegistryListener } from "../../../../src/http/registry/registry-routes.ts";
import { RepeatedHeads } from "../../../../src/http/fast-path/repeated-heads.ts";
import type { ManifestAnswer } from "../../../../src/mirror/manifests/manifest-answers.ts";
import type { Mirror } from "../../../../src/mirror/mirror.ts";
import { createRoutes } from "../../../../src/routing/routes.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import { NO_AUDIT } from "../../../../src/telemetry/audit.ts";
import { cacheStatus } from "../../../../src/telemetry/cache-status.ts";
import { createLogger } from "../../../../src/telemetry/logger.ts";
import { createMetrics } from "../../../../src/telemetry/metrics.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { upstreamConfig } from "../../../support/upstream-harness.ts";
import { dateless, WireConnection } from "../../../support/wire-connection.ts";

const GET = get("v");

function get(tag: string, more = "", version = "HTTP/1.1"): string {
  return `GET /v2/a/manifests/${tag} ${version}\r\nHost: m\r\n${more}\r\n`;
}

function manifestOf(bytes: Buffer): ManifestAnswer {
  return {
    bytes,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    digest: digestOf(bytes),
    status: cacheStatus.hit(),
    ageMs: 3_000,
    isStale: false,
  };
}

const SMALL = manifestOf(Buffer.from('{"schemaVersion":2}'));

interface LogLine {
  readonly isWhole: boolean;
  readonly reference: string;
}

/** The registry API over a mirror that has one manifest, in memory or not. */
class Harness {
  readonly server: Server;
  /** How many heads Node's parser has read. */
  parsed = 0;
  /** The manifest in memory, for every request. */
  recalled: ManifestAnswer | undefined = SMALL;
  /** The answer that a request waits for if {@link recalled} is undefined. */
  readonly waited = Promise.withResolvers<ManifestAnswer>();
  isRestricting = false;
  upstreams = [upstreamConfig([])];
  readonly clientAddress = createClientAddress([]);
  readonly log: LogLine[] = [];
  readonly limits = createConnectionLimits({
    connections: 100,
    connectionsPerAddress: 100,
  });

  private constructor(isWatched: boolean) {
    const log = createLogger(
      { level: "info" },
      { write: (line) => void this.log.push(JSON.parse(line) as LogLine) },
    );
    const metrics = createMetrics("0");
    const mirror = {
      recallManifest: () => this.recalled,
      getManifest: () => this.waited.promise,
    } as unknown as Mirror;
    const isRestricting = () => this.isRestricting;
    const access = {
      get isRestricting() {
        return isRestricting();
      },
      hasRules: false,
      judge: () => ({
        kind: "admitted" as const,
        user: undefined,
        maySee: () => true,
        may: () => false,
      }),
      check: () => Promise.resolve(),
      prepare: () => Promise.reject(new Error("unexpected call")),
      close: () => Promise.resolve(),
    };
    let routes = createRoutes(this.upstreams);
    let { upstreams } = this;
    const { clientAddress, limits } = this;
    const currentRoutes = () => {
      if (upstreams !== this.upstreams) {
        ({ upstreams } = this);
        routes = createRoutes(upstreams);
      }
      return routes;
    };
    const shared = { mirror, currentRoutes, access, clientAddress, log };
    const repeatedHeads = new RepeatedHeads({ ...shared, limits, metrics });
    this.server = createServer(
      createRegistryListener({
        ...shared,
        metrics,
        repeatedHeads,
        purgeImage: () => Promise.reject(new Error("unexpected call")),
        listCatalog: () => Promise.reject(new Error("unexpected call")),
        audit: NO_AUDIT,
        instanceId: "x",
      }),
    );
    this.server.prependListener("request", () => (this.parsed += 1));
    limits.guard(this.server);
    if (isWatched) repeatedHeads.watch(this.server);
  }

  /** @param isWatched if false, Node's parser reads every head */
  static async start(test: AfterTest, isWatched = true): Promise<Harness> {
    const harness = new Harness(isWatched);
    const { server } = harness;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(test, () => {
      server.closeAllConnections();
      server.close();
    });
    return harness;
  }

  open(test: AfterTest): Promise<WireConnection> {
    const { port } = this.server.address() as AddressInfo;
    return WireConnection.open(test, port);
  }

  /** Opens a connection on which one head has been answered without the parser. */
  async openKnown(test: AfterTest): Promise<WireConnection> {
    const connection = await this.open(test);
    for (let i = 0; i < 3; i++) await connection.ask(GET);
    assert.equal(await this.parsedFor(connection, GET), 0);
    return connection;
  }

  /** Sends the requests one after the other; returns how many heads the parser read. */
  async parsedFor(
    connection: WireConnection,
    ...heads: string[]
  ): Promise<number> {
    const before = this.parsed;
    for (const head of heads) {
      assert.match(await connection.ask(head), /^HTTP\/1\.1 200 /);
    }
    return this.parsed - before;
  }
}

void describe("a head that was parsed before", () => {
  void it("is not parsed again, and gets the bytes that Node sent for it", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.open(test);
    const first = await connection.ask(GET);
    for (let i = 0; i < 6; i++) {
      assert.equal(dateless(await connection.ask(GET)), dateless(first));
    }
    // The first starts the watch, the second ends between two messages, the third is remembered.
    assert.equal(harness.parsed, 3);
    assert.equal(harness.log.length, 7);
  });

  void it("is parsed on another connection until that one is watched", async (test) => {
    const harness = await Harness.start(test);
    await harness.openKnown(test);
    const other = await harness.open(test);
    assert.equal(await harness.parsedFor(other, GET, GET, GET, GET), 2);
  });

  void it("keeps its meaning although the same bytes ended another message before", async (test) => {
    for (const isKnown of [false, true]) {
      const harness = await Harness.start(test);
      if (isKnown) await harness.openKnown(test);
      const { length } = harness.log;
      const connection = await harness.open(test);
      // The watch starts when the parser already has the beginning of the second head.
      connection.socket.write(
        `${GET}GET /v2/a/manifests/other HTTP/1.1\r\nUser-Agent: `,
      );
      await connection.answer();
      for (let i = 0; i < 5; i++) await connection.ask(GET);
      assert.deepEqual(
        harness.log.slice(length).map(({ reference }) => reference),
        ["v", "other", "v", "v", "v", "v"],
      );
    }
  });

  void it("is known on every connection, each head separately", async (test) => {
    const harness = await Harness.start(test);
    await harness.openKnown(test);
    const other = await harness.open(test);
    const head = GET.replace("GET", "HEAD");
    const heads = [GET, GET, head, GET, head, head, GET];
    assert.equal(await harness.parsedFor(other, ...heads), 3);
    assert.equal(await harness.parsedFor(other, get("w"), get("w")), 1);
  });

  void it("is answered with the manifest that is in memory now", async (test) => {
    const harness = await Harness.start(test);
    const plain = await Harness.start(test, false);
    const connection = await harness.openKnown(test);
    const other = await plain.open(test);
    const { parsed } = harness;
    const changes: readonly Partial<ManifestAnswer>[] = [
      { ageMs: 9_000 },
      { ageMs: undefined },
      { status: cacheStatus.hit(5_000) },
      { mediaType: "application/vnd.oci.image.index.v1+json" },
      { digest: digestOf(Buffer.from("other")) },
      { digest: undefined },
      { bytes: Buffer.from('{"schemaVersion":3}') },
      { bytes: Buffer.from("{}") },
      { isStale: true },
    ];
    // The unchanged answer precedes each change, so that nothing else differs.
    for (const change of changes.flatMap((one) => [{}, one])) {
      const changed = { ...SMALL, ...change };
      harness.recalled = changed;
      plain.recalled = changed;
      assert.equal(
        dateless(await connection.ask(GET)),
        dateless(await other.ask(GET)),
      );
    }
    assert.equal(harness.parsed, parsed);
  });

  void it("is routed by the current configuration", async (test) => {
    const harness = await Harness.start(test);
    const plain = await Harness.start(test, false);
    const head =
      "GET /v2/a/b/manifests/v?ns=registry.example HTTP/1.1\r\nHost: m\r\n\r\n";
    const connection = await harness.open(test);
    const other = await plain.open(test);
    const named = upstreamConfig([], { name: "other.example", aliases: ["a"] });
    const common = upstreamConfig([]);
    for (let i = 0; i < 3; i++) await connection.ask(head);
    const { parsed } = harness;
    for (const upstreams of [[common], [common, named], [named], [common]]) {
      harness.upstreams = upstreams;
      plain.upstreams = upstreams;
      await connection.ask(head);
      assert.equal(
        dateless(await connection.ask(head)),
        dateless(await other.ask(head)),
      );
    }
    assert.equal(harness.parsed, parsed);
    const unknown = [upstreamConfig([], { name: "other.example" })];
    harness.upstreams = unknown;
    plain.upstreams = unknown;
    assert.equal(
      dateless(await connection.ask(head)),
      dateless(await other.ask(head)),
    );
    assert.equal(harness.parsed, parsed + 1);
  });

  void it("is parsed if the manifest is not in memory", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    harness.recalled = undefined;
    harness.waited.resolve(SMALL);
    assert.equal(await harness.parsedFor(connection, GET, GET), 2);
    harness.recalled = SMALL;
    assert.equal(await harness.parsedFor(connection, GET, GET), 0);
  });

  void it("is parsed once more if the manifest has grown", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    harness.recalled = manifestOf(Buffer.alloc(10_000, " "));
    assert.equal(await harness.parsedFor(connection, GET, GET, GET), 1);
  });

  void it("is always parsed if the head or the manifest is large", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    const long = get("v", `User-Agent: ${"a".repeat(2_048)}\r\n`);
    assert.equal(await harness.parsedFor(connection, long, long), 2);
    harness.recalled = manifestOf(Buffer.alloc(16 * 1024 + 1, " "));
    assert.equal(await harness.parsedFor(connection, GET, GET), 2);
  });

  void it("is always parsed if it has other headers", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    for (const more of [
      "Authorization: Basic eDp5\r\n",
      'If-None-Match: "x"\r\n',
      "Range: bytes=0-1\r\n",
      "Via: 1.1 other\r\n",
      "Forwarded: for=192.0.2.1\r\n",
      "X-Forwarded-For: 192.0.2.1\r\n",
      "Connection: keep-alive\r\n",
      "Content-Length: 0\r\n",
      "Cookie: a=b\r\n",
      "Upgrade: h2c\r\n",
      "X-Anything: 1\r\n",
    ]) {
      const head = get("v", more);
      assert.equal(await harness.parsedFor(connection, head, head), 2, more);
      assert.equal(await harness.parsedFor(connection, GET), 0, more);
    }
  });

  void it("is parsed for HTTP/1.0, whose connection is closed after the response", async (test) => {
    const harness = await Harness.start(test);
    const old = get("v", "", "HTTP/1.0");
    for (let i = 1; i <= 2; i++) {
      const connection = await harness.open(test);
      connection.socket.write(old);
      assert.match(await connection.rest(), /\r\nConnection: close\r\n/);
      assert.equal(harness.parsed, i);
    }
  });

  void it("is parsed if access is restricted", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    harness.isRestricting = true;
    assert.equal(await harness.parsedFor(connection, GET, GET), 2);
    const other = await harness.open(test);
    assert.equal(await harness.parsedFor(other, GET, GET, GET), 3);
    harness.isRestricting = false;
    assert.equal(await harness.parsedFor(connection, GET, GET), 0);
    assert.equal(await harness.parsedFor(other, GET, GET, GET), 2);
  });

  void it("is parsed if it was sent by a trusted proxy", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    harness.clientAddress.trust(["127.0.0.0/8"]);
    assert.equal(await harness.parsedFor(connection, GET, GET), 2);
    harness.clientAddress.trust(["192.0.2.1"]);
    assert.equal(await harness.parsedFor(connection, GET, GET), 0);
  });

  void it("is parsed after the server stopped listening", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    harness.recalled = undefined;
    const { parsed } = harness;
    const waiting = connection.ask(GET);
    while (harness.parsed === parsed) await setImmediate();
    harness.recalled = SMALL;
    // The connection stays open for the answer that is not sent yet.
    harness.server.close();
    harness.waited.resolve(SMALL);
    await waiting;
    assert.equal(await harness.parsedFor(connection, GET), 1);
  });

  void it("counts towards the requests per connection, and the last answer closes the connection", async (test) => {
    const harness = await Harness.start(test);
    harness.server.maxRequestsPerSocket = 7;
    const connection = await harness.open(test);
    // The first one precedes the watch.
    for (let i = 1; i <= 7; i++) {
      assert.match(
        await connection.ask(GET),
        /\r\nKeep-Alive: timeout=5, max=7\r\n/,
      );
    }
    assert.equal(harness.parsed, 3);
    connection.socket.write(GET);
    assert.match(await connection.rest(), /\r\nConnection: close\r\n/);
    assert.equal(harness.parsed, 4);
  });

  void it("counts as use of its connection, so that others are closed first", async (test) => {
    const harness = await Harness.start(test);
    const one = await harness.openKnown(test);
    const two = await harness.openKnown(test);
    await one.ask(GET);
    const { limits } = harness;
    limits.setBounds({ connections: 2, connectionsPerAddress: 100 });
    const three = await harness.open(test);
    assert.equal(await two.rest(), "");
    assert.match(await one.ask(GET), /^HTTP\/1\.1 200 /);
    assert.match(await three.ask(GET), /^HTTP\/1\.1 200 /);
  });
});

void describe("a watched connection that receives another chunk", () => {
  const cases: readonly (readonly [string, string, readonly string[]])[] = [
    ["two requests in one chunk", "200", [GET + GET]],
    ["two requests in one chunk, one of them unknown", "200", [GET + get("x")]],
    ["a request in two pieces", "200", [GET.slice(0, 20), GET.slice(20)]],
    ["a request a byte at a time", "200", GET.split("")],
    ["an empty line before a request", "200", [`\r\n${GET}`]],
    [
      "a request and the beginning of the next",
      "200",
      [`${GET}G`, GET.slice(1)],
    ],
    [
      "a body",
      "200",
      [get("v", "Content-Length: 4\r\n"), "GET ", `${GET}${GET}`],
    ],
    [
      "a known head in a body",
      "200",
      [get("v", `Content-Length: ${GET.length}\r\n`), GET, GET],
    ],
    ["bytes that are not a request", "400", ["\0\r\n\r\n", GET]],
    ["only the end of a head", "400", ["\r\n\r\n", ": x\r\n\r\n"]],
  ];
  for (const [name, status, chunks] of cases) {
    void it(`(${name}) is left to Node from then on, and gets the same responses`, async (test) => {
      const answers: string[] = [];
      const parsed: number[] = [];
      for (const isWatched of [true, false]) {
        const harness = await Harness.start(test, isWatched);
        const connection = await (isWatched
          ? harness.openKnown(test)
          : harness.open(test));
        const before = harness.parsed;
        for (const chunk of chunks) {
          connection.socket.write(chunk);
          for (let turn = 0; turn < 5; turn++) await setImmediate();
        }
        connection.socket.end(get("end", "Connection: close\r\n"));
        answers.push(dateless(await connection.rest()));
        parsed.push(harness.parsed - before);
      }
      assert.equal(answers[0], answers[1]);
      assert.equal(parsed[0], parsed[1]);
      assert.equal(answers[0]?.slice(0, 12), `HTTP/1.1 ${status}`);
    });
  }

  void it("(a request before the response) is left to Node from then on", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    const { parsed } = harness;
    harness.recalled = undefined;
    connection.socket.write(get("slow"));
    while (harness.parsed < parsed + 1) await setImmediate();
    harness.recalled = SMALL;
    connection.socket.write(GET);
    while (harness.parsed < parsed + 2) await setImmediate();
    harness.waited.resolve(manifestOf(Buffer.from("{}")));
    assert.match(await connection.answer(), /\r\n\r\n\{\}$/);
    assert.match(await connection.answer(), /"schemaVersion":2/);
    assert.equal(await harness.parsedFor(connection, GET, GET), 2);
  });

  void it("(FIN after a known head) gets the response and is closed", async (test) => {
    const harness = await Harness.start(test);
    const connection = await harness.openKnown(test);
    const { parsed } = harness;
    connection.socket.end(GET);
    assert.match(await connection.rest(), /^HTTP\/1\.1 200 .*2\}$/s);
    assert.equal(harness.parsed, parsed);
  });

  void it("(a client that does not read) is left to Node, and each response is reported when it has left", async (test) => {
    const harness = await Harness.start(test);
    harness.recalled = manifestOf(Buffer.alloc(16_000, " "));
    const connection = await harness.openKnown(test);
    connection.socket.pause();
    const [before, { length }] = [harness.parsed, harness.log];
    // More than the kernel buffers, so that Node has to wait in the end.
    let sent = 0;
    while (harness.parsed === before) {
      connection.socket.write(GET);
      sent += 1;
      for (let turn = 0; turn < 3; turn++) await setImmediate();
    }
    // Neither the blocked answer nor the one after it is logged.
    assert.equal(harness.log.length - length, sent - 2);
    connection.socket.resume();
    for (let i = 0; i < sent; i++) {
      assert.match(await connection.answer(), /^HTTP\/1\.1 200 /);
    }
    while (harness.log.length < length + sent) await setImmediate();
    assert.ok(harness.log.every(({ isWhole }) => isWhole));
    assert.equal(await harness.parsedFor(connection, GET, GET), 2);
  });

  void it("(a client that does not read and disconnects) is reported as cut", async (test) => {
    const harness = await Harness.start(test);
    harness.recalled = manifestOf(Buffer.alloc(16_000, " "));
    const connection = await harness.openKnown(test);
    connection.socket.pause();
    const [before, { length }] = [harness.parsed, harness.log];
    let sent = 0;
    while (harness.parsed === before) {
      connection.socket.write(GET);
      sent += 1;
      for (let turn = 0; turn < 3; turn++) await setImmediate();
    }
    connection.socket.resetAndDestroy();
    while (harness.log.length < length + sent) await setImmediate();
    const cut = harness.log.filter(({ isWhole }) => !isWhole);
    assert.equal(cut.length, 2);
  });
});
