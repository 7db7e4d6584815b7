import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { WireConnection } from "../../support/wire-connection.ts";

const KIB = 1024;
const LARGEST = 32 * KIB;
const BLOB = seededBlob("long heads", 300_000);
const IMAGE = buildImage({ seed: "long heads", layers: [BLOB] });
const TAG = "GET /v2/a/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n";

/** Builds a request head of exactly this many bytes. */
function headOf(bytes: number, target: string, more = ""): string {
  const start = `GET ${target} HTTP/1.1\r\nHost: m\r\n${more}X-Filler: `;
  return `${start}${"x".repeat(bytes - start.length - 4)}\r\n\r\n`;
}

async function setUp(test: AfterTest, isTls: boolean): Promise<TestMirror> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  if (!isTls) return startMirror(test, [upstreamOf(upstream)]);
  const folder = await tempDir(test);
  const { cert, key } = createCertificateAuthority().issue();
  const certificateFile = join(folder, "tls.crt");
  const keyFile = join(folder, "tls.key");
  await writeFile(certificateFile, cert);
  await writeFile(keyFile, key, { mode: 0o600 });
  return startMirror(test, [upstreamOf(upstream)], {
    tls: { certificateFile, keyFile, clientCaFile: undefined },
  });
}

/** Sends a head; returns the status of the answer. */
async function statusOf(
  test: AfterTest,
  { port }: TestMirror,
  isTls: boolean,
  head: string,
): Promise<number> {
  const where = { port, host: "127.0.0.1" };
  const socket = isTls
    ? connectTls({ ...where, rejectUnauthorized: false })
    : connect(where);
  releaseAfter(test, () => void socket.destroy());
  socket.on("error", () => {});
  await once(socket, isTls ? "secureConnect" : "connect");
  socket.write(head);
  const [answer] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  return Number(/^HTTP\/1\.1 (\d+)/.exec(answer.toString("latin1"))?.[1]);
}

for (const isTls of [false, true]) {
  void describe(`a request head ${isTls ? "over TLS" : "without TLS"}`, () => {
    void it("is read up to 32 KiB, and refused above", async (test) => {
      const mirror = await setUp(test, isTls);
      const ask = (bytes: number) =>
        statusOf(test, mirror, isTls, headOf(bytes, "/v2/a/manifests/v"));
      assert.equal(await ask(17 * KIB), 200);
      assert.equal(await ask(LARGEST), 200);
      assert.equal(await ask(LARGEST + KIB), 431);
      assert.equal(await ask(4 * LARGEST), 431);
    });
  });
}

void describe("a long head", () => {
  void it("is answered in order between remembered heads of the connection", async (test) => {
    const mirror = await setUp(test, false);
    const connection = await WireConnection.open(test, mirror.port);
    const path = `/v2/a/blobs/${BLOB.digest}`;
    await mirror.get(path);
    await mirror.settled();
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 4; j++) {
        assert.match(await connection.ask(TAG), /^HTTP\/1\.1 200 /);
      }
      const ranges = Array.from({ length: 1_024 }, (_, at) => {
        const first = at * 250 + i;
        return `${first}-${first + 99}`;
      });
      const head = `GET ${path} HTTP/1.1\r\nHost: m\r\nRange: bytes=${ranges.join(",")}\r\n\r\n`;
      const long = headOf(30 * KIB, path, head.split("\r\n")[2] + "\r\n");
      for (let at = 0; at < long.length; at += 7_001) {
        connection.socket.write(long.slice(at, at + 7_001), "latin1");
        await nextTurn();
      }
      const answer = await connection.answer();
      assert.match(answer, /^HTTP\/1\.1 206 /);
      assert.equal(answer.match(/^Content-Range: /gm)?.length, 1_024);
    }
    assert.match(await connection.ask(TAG), /^HTTP\/1\.1 200 /);
  });
});
