import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { resolveConnectionLimits } from "../../../../src/config/descriptor-limit.ts";
import {
  type ConnectionLimits,
  type ConnectionLimitsOptions,
  createConnectionLimits,
} from "../../../../src/http/server/connection-limits.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Counter } from "../../../support/barrier.ts";

const GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

class Harness {
  readonly limits: ConnectionLimits;
  readonly cut: string[] = [];
  /** Requests to /wait that are not answered yet. */
  readonly waiting: ServerResponse[] = [];
  readonly changed = new Counter();
  readonly #port: () => number;

  private constructor(limits: ConnectionLimits, port: () => number) {
    this.limits = limits;
    this.#port = port;
  }

  static async start(
    test: AfterTest,
    options: Partial<ConnectionLimitsOptions>,
  ): Promise<Harness> {
    const server = createServer((request, response) => {
      if (request.url === "/wait") {
        harness.waiting.push(response);
        harness.changed.notify();
      } else response.end("ok");
    });
    const limits = createConnectionLimits({
      connections: 100,
      connectionsPerAddress: 100,
      onCut: (what) => {
        harness.cut.push(what);
        harness.changed.notify();
      },
      ...options,
    });
    const harness: Harness = new Harness(
      limits,
      () => (server.address() as AddressInfo).port,
    );
    limits.guard(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(test, async () => {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    });
    return harness;
  }

  async open(localAddress = "127.0.0.1"): Promise<Socket> {
    const before = this.limits.open;
    const cuts = this.cut.length;
    const socket = connect({
      port: this.#port(),
      host: "127.0.0.1",
      localAddress,
    });
    socket.on("error", () => {});
    // Only a socket that reads notices the end.
    socket.resume();
    await once(socket, "connect");
    // Wait until it is accepted, not only in the kernel's queue.
    while (this.limits.open === before && this.cut.length === cuts) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    return socket;
  }

  async ask(socket: Socket): Promise<string> {
    socket.write(GET);
    const [bytes] = (await once(socket, "data")) as [Buffer];
    return bytes.toString().slice(9, 12);
  }

  async hold(socket: Socket): Promise<void> {
    const count = this.waiting.length + 1;
    socket.write(GET.replace("/", "/wait"));
    await this.changed.until(
      () => this.waiting.length >= count,
      () => "no request",
    );
  }
}

/** Resolves when the socket is closed, by FIN or RST. */
function gone(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once("close", () => resolve());
  });
}

void describe("the connection limit", () => {
  void it("closes the longest idle connection for a new one", async (test) => {
    const harness = await Harness.start(test, { connections: 3 });
    const first = await harness.open();
    const second = await harness.open();
    const third = await harness.open();
    // The first was used last, so the second is the longest idle.
    assert.equal(await harness.ask(first), "200");
    const closed = gone(second);
    const fourth = await harness.open();
    await closed;
    for (const socket of [first, third, fourth]) {
      assert.equal(await harness.ask(socket), "200");
    }
    assert.deepEqual(harness.cut, ["closed"]);
    assert.equal(harness.limits.open, 3);
  });

  void it("never closes a busy connection, and refuses a new one if all are busy", async (test) => {
    const harness = await Harness.start(test, { connections: 2 });
    const first = await harness.open();
    const second = await harness.open();
    await harness.hold(first);
    await harness.hold(second);
    const third = await harness.open();
    await gone(third);
    assert.deepEqual(harness.cut, ["refused"]);
    const answered = once(first, "data");
    harness.waiting[0]?.end("late");
    await answered;
    const fourth = await harness.open();
    assert.equal(await harness.ask(fourth), "200");
    assert.deepEqual(harness.cut, ["refused", "closed"]);
  });

  void it("counts a connection with half a request as idle", async (test) => {
    const harness = await Harness.start(test, { connections: 1 });
    const slow = await harness.open();
    slow.write("GET / HTTP/1.1\r\nHo");
    const closed = gone(slow);
    const next = await harness.open();
    await closed;
    assert.equal(await harness.ask(next), "200");
  });

  void it("closes connections of the same address first", async (test) => {
    const harness = await Harness.start(test, { connectionsPerAddress: 2 });
    const other = await harness.open("127.0.0.2");
    const many: Socket[] = [];
    for (let i = 0; i < 10; i++) many.push(await harness.open());
    assert.equal(harness.limits.open, 3);
    assert.deepEqual(harness.cut, Array<string>(8).fill("closed"));
    assert.equal(await harness.ask(other), "200");
  });

  void it("does not limit the connections per address of a trusted proxy", async (test) => {
    const harness = await Harness.start(test, {
      connectionsPerAddress: 1,
      isTrustedProxy: (address) => address === "127.0.0.1",
    });
    for (let i = 0; i < 5; i++) await harness.open();
    assert.equal(harness.limits.open, 5);
  });

  void it("counts back to zero for every way that connections end", async (test) => {
    const harness = await Harness.start(test, { connections: 8 });
    for (let round = 0; round < 5; round++) {
      const sockets: Socket[] = [];
      for (let i = 0; i < 12; i++) sockets.push(await harness.open());
      for (const [i, socket] of sockets.entries()) {
        if (i % 2 === 0) socket.destroy();
        else socket.end();
      }
      while (harness.limits.open > 0) {
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    assert.equal(harness.limits.open, 0);
  });
});

void describe("connection limits that are not configured", () => {
  const none = { connections: 0, connectionsPerAddress: 0 };
  for (const [descriptors, connections, perAddress] of [
    [20_000, 10_000, 5_000],
    [1_024, 512, 256],
    [1_048_576, 16_384, 8_192],
    [Infinity, 16_384, 8_192],
    [1, 2, 1],
  ] as const) {
    void it(`are derived from ${descriptors} file descriptors`, () => {
      assert.deepEqual(resolveConnectionLimits(none, descriptors), {
        connections,
        connectionsPerAddress: perAddress,
      });
    });
  }

  void it("are replaced by configured values", () => {
    assert.deepEqual(
      resolveConnectionLimits(
        { connections: 7, connectionsPerAddress: 5 },
        100,
      ),
      { connections: 7, connectionsPerAddress: 5 },
    );
  });
});
