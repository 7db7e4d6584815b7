import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { createConnectionLimits } from "../../../../src/http/server/connection-limits.ts";
import { keepHalfOpen } from "../../../../src/http/server/half-open.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Counter } from "../../../support/barrier.ts";
import { createCertificateAuthority } from "../../../support/certificate-authority.ts";

const PROBE_MS = 20;

interface Served {
  readonly port: number;
  readonly ca: string;
  /** Connections on which the client's end was read. */
  readonly ended: ReadonlySet<Socket>;
  /** Responses that have not ended. */
  readonly answering: ReadonlySet<unknown>;
  readonly counter: Counter;
}

/** Answers each request with one byte, and never ends the answer. */
async function serve(test: AfterTest, isTls: boolean): Promise<Served> {
  const answering = new Set<unknown>();
  const counter = new Counter();
  const authority = createCertificateAuthority();
  const server: Server = isTls
    ? createTlsServer(authority.issue())
    : createServer();
  server.on("request", (_request, response) => {
    answering.add(response);
    response.on("close", () => {
      answering.delete(response);
      counter.notify();
    });
    response.write("x");
  });
  const limits = createConnectionLimits({
    connections: 10,
    connectionsPerAddress: 10,
  });
  limits.guard(server);
  const acceptedOf = (socket: Socket) =>
    limits.connectionOf(socket)?.socket ?? socket;
  keepHalfOpen(server, acceptedOf, PROBE_MS);
  const ended = new Set<Socket>();
  server.on(isTls ? "secureConnection" : "connection", (socket: Socket) => {
    socket.once("end", () => {
      ended.add(socket);
      counter.notify();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return { port: address.port, ca: authority.cert, ended, answering, counter };
}

for (const isTls of [false, true]) {
  void describe(`a half-closed connection ${isTls ? "with" : "without"} TLS`, () => {
    void it("is closed after its client is gone, although nothing is sent on it", async (test) => {
      const { port, ca, ended, answering, counter } = await serve(test, isTls);
      const accepted = connect({ port, host: "127.0.0.1" });
      const socket = isTls
        ? connectTls({ socket: accepted, ca, servername: "localhost" })
        : accepted;
      socket.on("error", () => {});
      socket.write("GET / HTTP/1.1\r\nHost: m\r\n\r\n");
      await once(socket, "data");
      socket.end();
      // A reset before the FIN is read would be noticed without a probe.
      await counter.until(
        () => ended.size === 1,
        () => "the end has not been read",
      );
      assert.equal(answering.size, 1);
      accepted.resetAndDestroy();
      await counter.until(
        () => answering.size === 0,
        () => "the answer is still due",
      );
    });
  });
}
