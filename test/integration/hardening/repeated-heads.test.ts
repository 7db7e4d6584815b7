import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import { dateless, WireConnection } from "../../support/wire-connection.ts";

const ONE = buildImage({ seed: "repeated" });
const TWO = buildImage({ seed: "repeated-too" });
const TAG_TTL_MS = 600_000;

/** The mirror's request counters. */
const COUNTERS =
  /^entrepot_(?:http_requests_total|cache_requests_total|served_bytes_total|http_request_duration_seconds_count|upstream_requests_total)/;

interface Scene {
  readonly mirror: TestMirror;
  readonly upstream: ScriptedUpstream;
}

/** A request line with the number of repetitions, or an action between two requests. */
type Step =
  | readonly [method: "GET" | "HEAD", path: string, times: number]
  | ((scene: Scene) => Promise<unknown> | void);

const BY_TAG = "/v2/app/manifests/v";
const BY_DIGEST = `/v2/app/manifests/${ONE.manifest.digest}`;

const SCRIPTS: Readonly<Record<string, readonly Step[]>> = {
  "tags, digests, GET and HEAD by turns": [
    ["GET", BY_TAG, 8],
    ["HEAD", BY_TAG, 4],
    ["GET", BY_DIGEST, 4],
    ["HEAD", BY_DIGEST, 4],
    ["GET", `${BY_TAG}?ns=registry.example`, 4],
    ["GET", "/v2/registry.example/app/manifests/v", 4],
    ["GET", BY_TAG, 4],
  ],
  "other requests between them": [
    ["GET", BY_TAG, 8],
    ["GET", `/v2/app/blobs/${ONE.config.digest}`, 1],
    ["GET", BY_TAG, 2],
    ["GET", "/v2/app/manifests/none", 2],
    ["GET", BY_TAG, 2],
    ["GET", "/v2/", 2],
    ["GET", "/v2/APP/manifests/v", 2],
    ["GET", BY_TAG, 2],
    ["GET", "/v2/app/tags/list", 1],
    ["GET", BY_TAG, 2],
  ],
  "a tag that ages, is asked for again, and moves": [
    ["GET", BY_TAG, 8],
    ({ mirror }) => mirror.clock.advance(5_000),
    ["GET", BY_TAG, 2],
    ({ mirror }) => mirror.clock.advance(TAG_TTL_MS),
    ["GET", BY_TAG, 3],
    ({ mirror, upstream }) => {
      upstream.content.addImage("app", TWO, "v");
      mirror.clock.advance(TAG_TTL_MS);
    },
    ["GET", BY_TAG, 3],
    ({ mirror }) => mirror.clock.setWall(Date.UTC(2020, 0, 1)),
    ["GET", BY_TAG, 3],
  ],
  "a policy that refuses it from now on, and no more": [
    ["GET", BY_TAG, 8],
    ({ mirror, upstream }) =>
      mirror.reload({ upstreams: [upstreamOf(upstream, { deny: ["**"] })] }),
    ["GET", BY_TAG, 2],
    ({ mirror, upstream }) =>
      mirror.reload({ upstreams: [upstreamOf(upstream)] }),
    ["GET", BY_TAG, 3],
  ],
  "an upstream that is another from now on": [
    ["GET", BY_TAG, 8],
    ({ mirror, upstream }) =>
      mirror.reload({
        upstreams: [upstreamOf(upstream, { name: "other.example" })],
      }),
    ["GET", BY_TAG, 3],
  ],
  "an image that is purged": [
    ["GET", BY_TAG, 8],
    ({ mirror }) => mirror.operate("DELETE", "/images/registry.example/app:v"),
    ["GET", BY_TAG, 3],
  ],
  "a mirror that may not ask from now on": [
    ["GET", BY_TAG, 8],
    ({ mirror }) => {
      mirror.clock.advance(TAG_TTL_MS);
      return mirror.reload({ offline: true });
    },
    ["GET", BY_TAG, 3],
  ],
};

/** Runs a script; returns the answers, the log lines and the counters. */
async function run(test: AfterTest, steps: readonly Step[], more: string) {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("app", ONE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  const connection = await WireConnection.open(test, mirror.port);
  const answers: string[] = [];
  for (const step of steps) {
    if (typeof step === "function") {
      await step({ mirror, upstream });
      continue;
    }
    const [method, path, times] = step;
    const head = `${method} ${path} HTTP/1.1\r\nHost: m\r\nUser-Agent: "an\\agent"\r\nAccept: */*\r\n${more}\r\n`;
    for (let i = 0; i < times; i++) {
      answers.push(dateless(await connection.ask(head)));
    }
  }
  connection.socket.end();
  await connection.rest();
  const log = mirror.log
    .filter(({ msg }) => msg === "request")
    .map(({ time, durationMs, err, ...fields }) => {
      assert.equal(typeof time, "string");
      assert.equal(typeof durationMs, "number");
      return { ...fields, isError: err !== undefined };
    });
  const counters = (await mirror.metrics())
    .split("\n")
    .filter((line) => COUNTERS.test(line));
  assert.equal(log.length, answers.length);
  return { results: { answers, log, counters }, readHeads: mirror.readHeads };
}

void describe("repeated requests on one connection", () => {
  for (const [name, steps] of Object.entries(SCRIPTS)) {
    void it(`have the answers, log lines and counters of parsed ones: ${name}`, async (test) => {
      const repeated = await run(test, steps, "");
      // An unknown header makes the parser read every head.
      const read = await run(test, steps, "X-Other: 1\r\n");
      assert.equal(read.readHeads, read.results.answers.length);
      assert.ok(repeated.readHeads < read.readHeads);
      assert.deepEqual(repeated.results, read.results);
    });
  }

  void it("update the time of the last pull, like parsed ones", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", ONE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const connection = await WireConnection.open(test, mirror.port);
    const head = `GET ${BY_TAG} HTTP/1.1\r\nHost: m\r\n\r\n`;
    for (let i = 0; i < 8; i++) await connection.ask(head);
    const { readHeads } = mirror;
    mirror.clock.advance(60_000);
    await connection.ask(head);
    assert.equal(mirror.readHeads, readHeads);
    await mirror.restart();
    const { body } = await mirror.operate("GET", "/images");
    assert.match(JSON.stringify(body), /"2026-01-01T00:01:00\.000Z"/);
  });
});
