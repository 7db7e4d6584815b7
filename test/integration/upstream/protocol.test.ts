import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import { createServer as createTlsServer } from "node:tls";
import { releaseAfter } from "../../support/after-test.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "protocol" });

function raw(...lines: readonly string[]): { readonly raw: string } {
  return { raw: ["HTTP/1.1 200 OK", ...lines, "", "{}"].join("\r\n") };
}

/** Answers that undici's parser rejects, and must continue to reject. */
const MALFORMED = [
  ["two lengths", raw("Content-Length: 2", "Content-Length: 3")],
  ["a list of lengths", raw("Content-Length: 2, 2")],
  ["a negative length", raw("Content-Length: -2")],
  ["length and chunks", raw("Content-Length: 2", "Transfer-Encoding: chunked")],
  ["a bare line feed", { raw: "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}" }],
  ["a folded header", raw("X-A: b", " c", "Content-Length: 2")],
  ["NUL in a header", raw("X-A: b\0c", "Content-Length: 2")],
  ["HTTP/0.9", { raw: "{}" }],
  ["an unasked 100", { raw: "HTTP/1.1 100 Continue\r\n\r\n" }],
  ["64 KiB of headers", raw(`X-A: ${"b".repeat(65_536)}`, "Content-Length: 2")],
  [
    "an upgrade",
    {
      raw: "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    },
  ],
] as const;

void describe("an answer", () => {
  for (const [name, fault] of MALFORMED) {
    void it(`with ${name} is rejected, and the client survives`, async (t) => {
      const upstream = await ScriptedUpstream.start(t);
      upstream.content.addImage(ALPINE, IMAGE, "1");
      upstream.when({ kind: "manifest" }, fault, { times: 2 });
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const error = await upstreamErrorOf(
        client.getManifest(ALPINE, TAG, SIGNAL),
      );
      assert.ok(
        ["bad-response", "unreachable", "interrupted"].includes(error.kind),
        error.kind,
      );
      upstream.clearRules();
      const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
      assert.deepEqual(bytes, IMAGE.manifest.bytes);
    });
  }

  void it("that never arrives after early hints times out", async (t) => {
    const hint = Buffer.from("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      // Each one restarts undici's own time-out.
      const timer = setInterval(() => socket.write(hint), 20);
      socket.on("error", () => {});
      socket.on("close", () => clearInterval(timer));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(t, () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const { client } = startUpstreamClient(t, [`http://127.0.0.1:${port}`], {
      connectTimeoutMs: 200,
      headersTimeoutMs: 200,
    });
    const error = await upstreamErrorOf(
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "timeout");
  });

  void it("may follow early hints", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(500);
    upstream.when({}, { raw: `${hints}${raw("Content-Length: 2").raw}` });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(bytes.toString(), "{}");
  });
});

void describe("a kept connection", () => {
  void it("with an unrequested answer is not used again", async (t) => {
    const honest = JSON.stringify({ schemaVersion: 2, honest: true });
    const connections: Socket[] = [];
    const server = createServer((socket) => {
      connections.push(socket);
      socket.on("error", () => undefined);
      socket.on("data", () => {
        const answer = `HTTP/1.1 200 OK\r\nContent-Length: ${honest.length}\r\n\r\n${honest}`;
        const staged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        socket.write(connections.length === 1 ? answer + staged : answer);
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(t, async () => {
      for (const socket of connections) socket.destroy();
      server.close();
      await once(server, "close");
    });
    const address = server.address();
    if (typeof address !== "object" || address === null) assert.fail();
    const { client } = startUpstreamClient(t, [
      `http://127.0.0.1:${address.port}`,
    ]);
    for (let round = 0; round < 3; round++) {
      const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
      assert.equal(bytes.toString(), honest);
    }
    assert.ok(connections.length >= 2);
  });
});

void describe("TLS", () => {
  void it("that fails for the server's name is an error, without a request in plain text", async (t) => {
    const authority = createCertificateAuthority();
    let connections = 0;
    const server = createTlsServer({
      ...authority.issue(),
      SNICallback: (_, callback) => callback(new Error("unknown name")),
    });
    server.on("connection", () => (connections += 1));
    server.on("tlsClientError", () => undefined);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(t, async () => {
      server.close();
      await once(server, "close");
    });
    const address = server.address();
    if (typeof address !== "object" || address === null) assert.fail();
    const { client } = startUpstreamClient(
      t,
      [`https://localhost:${address.port}`],
      { tls: { ca: authority.cert, insecureSkipVerify: false } },
    );
    const error = await upstreamErrorOf(
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "unreachable");
    assert.ok(connections >= 1);
  });

  void it("trusts the public authorities and the configured one", async (t) => {
    const authority = createCertificateAuthority();
    const upstream = await ScriptedUpstream.start(t, {
      tls: authority.issue(),
    });
    upstream.content.addImage(ALPINE, IMAGE, "1");
    const { client } = startUpstreamClient(t, [upstream.origin], {
      tls: { ca: authority.cert, insecureSkipVerify: false },
    });
    await client.getManifest(ALPINE, TAG, SIGNAL);
  });

  void it("trusts any certificate with insecureSkipVerify", async (t) => {
    const authority = createCertificateAuthority();
    const upstream = await ScriptedUpstream.start(t, {
      tls: authority.issue({ hosts: ["another.example"] }),
    });
    upstream.content.addImage(ALPINE, IMAGE, "1");
    const { client } = startUpstreamClient(t, [upstream.origin], {
      tls: { ca: undefined, insecureSkipVerify: true },
    });
    await client.getManifest(ALPINE, TAG, SIGNAL);
  });

  const YESTERDAY = new Date(Date.now() - 86_400_000);
  for (const [name, options, isTrusted] of [
    ["of an unknown authority", {}, false],
    ["for another name", { hosts: ["another.example"] }, true],
    ["that has expired", { notBefore: new Date(0), notAfter: YESTERDAY }, true],
  ] as const) {
    void it(`refuses a certificate ${name}, and sends nothing`, async (t) => {
      const authority = createCertificateAuthority();
      const upstream = await ScriptedUpstream.start(t, {
        tls: authority.issue(options),
      });
      const { client } = startUpstreamClient(t, [upstream.origin], {
        tls: {
          ca: isTrusted ? authority.cert : undefined,
          insecureSkipVerify: false,
        },
      });
      const error = await upstreamErrorOf(
        client.getManifest(ALPINE, TAG, SIGNAL),
      );
      assert.equal(error.kind, "unreachable");
      assert.equal(upstream.count(), 0);
      assert.equal(client.isDown(), true);
    });
  }

  void it("that never completes its handshake is a time-out", async (t) => {
    const authority = createCertificateAuthority();
    const upstream = await ScriptedUpstream.start(t, {
      tls: authority.issue(),
    });
    upstream.blackHole();
    const { client } = startUpstreamClient(t, [upstream.origin], {
      connectTimeoutMs: 300,
    });
    const error = await upstreamErrorOf(
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "timeout");
    assert.equal(client.isDown(), true);
  });
});
