import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { releaseAfter } from "../../support/after-test.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { WireConnection } from "../../support/wire-connection.ts";

const IMAGE = buildImage({ seed: "slow-senders" });

/** Returns the text received until the mirror ended the connection. */
async function heard(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (part: Buffer) => (text += part.toString()));
  await once(socket, "close");
  return text;
}

void describe("connections (C4)", () => {
  void it("that are idle are closed for new ones of the same address, by limits.connectionsPerAddress", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      config: {
        limits: {
          connections: 50,
          connectionsPerAddress: 4,
          fills: 4,
          uploads: 0,
        },
      },
    });
    const idle: Socket[] = [];
    for (let i = 0; i < 20; i++) {
      const socket = connect(mirror.port, "127.0.0.1");
      socket.on("error", () => {}).resume();
      releaseAfter(test, () => void socket.destroy());
      await once(socket, "connect");
      idle.push(socket);
    }
    // This request is accepted after all of them, so that they were all counted.
    assert.equal((await mirror.get("/v2/app/manifests/v")).status, 200);
    const closed = idle.slice(0, 16);
    await Promise.all(
      closed.map(async (socket) => {
        if (!socket.closed) await once(socket, "close");
      }),
    );
    assert.equal(idle.filter((socket) => !socket.closed).length, 3);
  });

  void it("without a complete TLS hello are closed", async (test) => {
    const authority = createCertificateAuthority();
    const folder = await tempDir(test, "tls-");
    const tls = {
      certificateFile: join(folder, "tls.crt"),
      keyFile: join(folder, "tls.key"),
      clientCaFile: undefined,
    };
    const { cert, key } = authority.issue();
    await writeFile(tls.certificateFile, cert);
    await writeFile(tls.keyFile, key, { mode: 0o600 });
    const mirror = await startMirror(test, [], { tls });
    const closes = ["", "\x16\x03\x01\x02\x00\x01\x00"].map(async (bytes) => {
      const socket = connect(mirror.port, "127.0.0.1");
      socket.on("error", () => {}).resume();
      releaseAfter(test, () => void socket.destroy());
      await once(socket, "connect");
      if (bytes !== "") socket.write(Buffer.from(bytes, "latin1"));
      await once(socket, "close");
    });
    await Promise.all(closes);
  });
});

void describe("a client that sends slowly (C4)", () => {
  void it("is disconnected during its request head, even if it drips, while others are answered", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const open = async (): Promise<Socket> => {
      const socket = connect(mirror.port, "127.0.0.1");
      socket.on("error", () => {});
      releaseAfter(test, () => void socket.destroy());
      await once(socket, "connect");
      return socket;
    };
    const stalled = await open();
    stalled.write("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Half");
    const dripping = await open();
    dripping.write("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Drip: ");
    const drip = setInterval(() => dripping.write("a"), 250);
    releaseAfter(test, () => clearInterval(drip));
    // A connection with remembered heads has no more time.
    const known = await WireConnection.open(test, mirror.port);
    for (let i = 0; i < 8; i++) {
      await known.ask("GET /v2/app/manifests/v HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    assert.ok(mirror.readHeads < 8);
    known.socket.write("GET /v2/app/manifests/v HTTP/1.1\r\nHost: x\r\n");
    const ends = Promise.all([heard(stalled), heard(dripping), known.rest()]);
    assert.equal((await mirror.get("/v2/app/manifests/v")).status, 200);
    for (const text of await ends) {
      assert.match(text, /^HTTP\/1\.1 408 /);
      assert.match(text, /"errors":\[\{"code":"UNKNOWN"/);
      assert.doesNotMatch(text, /HTTP\/1\.1 200/);
    }
    assert.equal((await mirror.get("/v2/app/manifests/v")).status, 200);
  });
});
