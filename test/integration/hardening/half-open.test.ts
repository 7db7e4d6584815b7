import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { Conversation } from "../../support/conversation.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "half-open" });
const LARGE = seededBlob("half-open large", 3 * 1024 * 1024);
const SLOW = seededBlob("half-open slow", 300_000);

interface Scene {
  readonly upstream: ScriptedUpstream;
  readonly mirror: TestMirror;
  readonly ca: string | undefined;
}

async function setUp(test: AfterTest, isTls: boolean): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("app", IMAGE, "v");
  upstream.content.addBlob("app", LARGE);
  upstream.content.addBlob("app", SLOW);
  if (!isTls) {
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    return { upstream, mirror, ca: undefined };
  }
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
  const mirror = await startMirror(test, [upstreamOf(upstream)], { tls });
  return { upstream, mirror, ca: authority.cert };
}

function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: m\r\n\r\n`;
}

const TAG = get("/v2/app/manifests/v");
const MANIFEST_BODY = IMAGE.manifest.bytes.toString("latin1");

function blobPath({ digest }: { readonly digest: string }): string {
  return `/v2/app/blobs/${digest}`;
}

function bodyOf(answer: string): string {
  return answer.slice(answer.indexOf("\r\n\r\n") + 4);
}

/** @returns the bytes received until the mirror closed the connection */
async function ask(
  test: AfterTest,
  { mirror, ca }: Scene,
  request: string,
): Promise<string> {
  const conversation = await Conversation.open(test, mirror.port, ca);
  conversation.socket.end(request, "latin1");
  return conversation.rest();
}

for (const isTls of [false, true]) {
  const how = isTls ? "over TLS" : "over plain HTTP";
  void describe(`a client that half-closes after its request ${how}`, () => {
    void it("receives a whole manifest: cold, from memory, and with a known head", async (test) => {
      const scene = await setUp(test, isTls);
      for (let i = 0; i < 3; i++) {
        assert.equal(bodyOf(await ask(test, scene, TAG)), MANIFEST_BODY);
      }
      const { mirror, ca } = scene;
      const known = await Conversation.open(test, mirror.port, ca);
      const bytesOfOne = (await ask(test, scene, TAG)).length;
      for (let i = 1; i <= 4; i++) {
        known.socket.write(TAG);
        while (known.text.length < i * bytesOfOne) {
          await new Promise<void>((resolve) => setImmediate(resolve));
        }
      }
      known.socket.end(TAG);
      const text = await known.rest();
      assert.equal(text.split("HTTP/1.1 200 OK").length, 6);
      assert.ok(text.endsWith(MANIFEST_BODY));
    });

    void it("receives a whole blob, during the fill and from disk", async (test) => {
      const scene = await setUp(test, isTls);
      const want = LARGE.bytes().toString("latin1");
      for (let i = 0; i < 2; i++) {
        const body = bodyOf(await ask(test, scene, get(blobPath(LARGE))));
        assert.ok(body === want, `${body.length} of ${want.length} bytes`);
        await scene.mirror.settled();
      }
    });

    void it("receives a late answer, head and body", async (test) => {
      const scene = await setUp(test, isTls);
      const [head, middle] = [new Barrier(), new Barrier()];
      scene.upstream.when(
        { kind: "blob", reference: SLOW.digest },
        { hold: { at: 100_000, barrier: middle } },
      );
      scene.upstream.when(
        { kind: "manifest" },
        { hold: { at: "headers", barrier: head } },
      );
      const tag = ask(test, scene, TAG);
      const blob = ask(test, scene, get(blobPath(SLOW)));
      await scene.mirror.asked(2);
      await head.arrived();
      await middle.arrived();
      head.release();
      assert.equal(bodyOf(await tag), MANIFEST_BODY);
      middle.release();
      assert.ok(bodyOf(await blob) === SLOW.bytes().toString("latin1"));
    });

    void it("receives the answers to all requests that it sent before", async (test) => {
      const scene = await setUp(test, isTls);
      const text = await ask(test, scene, TAG + get("/v2/") + TAG);
      assert.equal(text.split("HTTP/1.1 200 OK").length, 4);
      assert.ok(text.endsWith(MANIFEST_BODY));
    });

    void it("is answered 400 if the last request is incomplete", async (test) => {
      const scene = await setUp(test, isTls);
      const text = await ask(test, scene, `${TAG}GET /v2/ HT`);
      const [first = "", second = ""] = text.split(MANIFEST_BODY);
      assert.match(first, /^HTTP\/1\.1 200 OK/);
      assert.match(second, /^HTTP\/1\.1 400 Bad Request/);
    });

    void it("is noticed as gone at the next write", async (test) => {
      const scene = await setUp(test, isTls);
      const barrier = new Barrier();
      scene.upstream.when({ kind: "blob" }, { hold: { at: 100_000, barrier } });
      const { mirror, ca } = scene;
      const gone = await Conversation.open(test, mirror.port, ca);
      gone.socket.write(get(blobPath(LARGE)));
      await barrier.arrived();
      gone.socket.destroy();
      barrier.release();
      await mirror.requested("blob");
      const [line] = mirror.log.filter(({ kind }) => kind === "blob");
      assert.notEqual(line?.["sizeBytes"], LARGE.sizeBytes);
    });

    void it("without a request has its connection closed immediately", async (test) => {
      const scene = await setUp(test, isTls);
      const { mirror, ca } = scene;
      const idle = await Conversation.open(test, mirror.port, ca);
      idle.socket.end();
      assert.equal(await idle.rest(), "");
    });
  });
}
