import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import type { UpstreamErrorKind } from "../../../src/wire/errors.ts";
import { Barrier } from "../../support/barrier.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import {
  ALPINE,
  repositoryName,
  SIGNAL,
  startUpstreamClient,
  TAG,
  tagReference,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "endpoints", layers: [5_000] });
const DIGEST = { kind: "digest", digest: IMAGE.manifest.digest } as const;
const LAYER = IMAGE.blobs[1] ?? assert.fail("no layer");

async function startRegistry(t: AfterTest): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(t);
  upstream.content.addImage(ALPINE, IMAGE, "1");
  return upstream;
}

void describe("endpoints", () => {
  void it("are tried in order, avoided ones last", async (t) => {
    const first = await startRegistry(t);
    const second = await startRegistry(t);
    const { client } = startUpstreamClient(t, [first.origin, second.origin]);
    const open = async (...avoided: string[]): Promise<string> => {
      const { body, endpoint } = await client.openBlob(ALPINE, LAYER.digest, {
        avoid: new Set(avoided),
        signal: SIGNAL,
      });
      await buffer(body);
      return endpoint;
    };
    assert.equal(await open(), first.origin);
    assert.equal(await open(first.origin), second.origin);
    assert.equal(await open(first.origin, second.origin), first.origin);
    assert.equal(await open("http://unknown.example"), first.origin);
  });

  const FAULTS = [
    ["500", { status: 500 }, 2],
    ["502", { status: 502 }, 2],
    ["504", { status: 504 }, 1],
    ["429", { status: 429, headers: { "retry-after": "60" } }, 1],
    ["400", { status: 400 }, 1],
    ["HTML", { headers: { "content-type": "text/html" }, body: "<p>" }, 1],
    ["garbage", { raw: "SSH-2.0-OpenSSH_9.2\r\n\r\n" }, 1],
    ["nothing", { raw: "" }, 2],
  ] as const;
  for (const [name, fault, tries] of FAULTS) {
    void it(`that answer ${name} are followed by the next, in the same call`, async (t) => {
      const first = await startRegistry(t);
      const second = await startRegistry(t);
      first.when({}, fault);
      const { client, observer } = startUpstreamClient(t, [
        first.origin,
        second.origin,
      ]);
      const { digest } = await client.headManifest(ALPINE, TAG, SIGNAL);
      assert.equal(digest, IMAGE.manifest.digest);
      assert.equal(first.count(), tries);
      assert.equal(second.count(), 1);
      assert.equal(observer.faults.length, 1);
      assert.equal(client.isDown(), false);
    });
  }

  for (const [status, kind] of [
    [404, "not-found"],
    [410, "not-found"],
    [403, "denied"],
    [401, "unauthorized"],
  ] as const) {
    void it(`that answer ${status} are final: the next is not tried`, async (t) => {
      const first = await startRegistry(t);
      const second = await startRegistry(t);
      first.when({}, { status });
      const { client } = startUpstreamClient(t, [first.origin, second.origin]);
      for (let round = 0; round < 4; round++) {
        const error = await upstreamErrorOf(
          client.headManifest(ALPINE, TAG, SIGNAL),
        );
        assert.equal(error.kind, kind);
        assert.equal(error.status, status);
      }
      assert.equal(second.count(), 0);
      assert.equal(client.isDown(), false);
    });
  }

  void it("that refuse connections rest for 5 s, and one probe ends the rest", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t);
    const { client, observer } = startUpstreamClient(t, [upstream.origin], {
      clock,
    });
    await upstream.stop();
    const ask = () => client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal((await upstreamErrorOf(ask())).kind, "unreachable");
    assert.equal(client.isDown(), true);
    const resting = await upstreamErrorOf(ask());
    assert.equal(resting.kind, "breaker-open");
    assert.equal(resting.retryAfterMs, 5_000);
    assert.equal(observer.responses.length, 1);

    await upstream.restart();
    clock.advance(5_000);
    const barrier = new Barrier();
    upstream.when({}, { hold: { at: "headers", barrier } });
    const probe = ask();
    await barrier.arrived(1);
    assert.equal((await upstreamErrorOf(ask())).kind, "breaker-open");
    barrier.release();
    await probe;
    assert.equal(client.isDown(), false);
    assert.equal(upstream.count(), 1);
    assert.deepEqual(observer.endpoints, [
      [upstream.origin, false],
      [upstream.origin, true],
    ]);
  });

  void it("whose name does not resolve rest immediately", async (t) => {
    const { client } = startUpstreamClient(t, ["http://nowhere.invalid"]);
    const ask = () => upstreamErrorOf(client.headManifest(ALPINE, TAG, SIGNAL));
    assert.equal((await ask()).kind, "unreachable");
    assert.equal((await ask()).kind, "breaker-open");
  });

  void it("with mild failures rest after three resources in a row", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const kinds: UpstreamErrorKind[] = [];
    upstream.when({}, { status: 504 });
    for (let round = 0; round < 5; round++) {
      assert.equal(client.isDown(), round > 2);
      const error = await upstreamErrorOf(
        client.getManifest(ALPINE, tagReference(`t${round}`), SIGNAL),
      );
      kinds.push(error.kind);
    }
    assert.deepEqual(kinds, [
      "unavailable",
      "unavailable",
      "unavailable",
      "breaker-open",
      "breaker-open",
    ]);
    assert.equal(upstream.count(), 3);
  });

  for (const where of ["connect", "headers", "body"] as const) {
    void it(`that time out in ${where} delay no second request for a resource, and no fourth resource`, async (t) => {
      const upstream = await startRegistry(t);
      if (where === "connect") upstream.blackHole();
      if (where === "headers") upstream.when({}, { stallAt: "headers" });
      if (where === "body") upstream.when({}, { stallAt: 10 });
      for (let round = 0; round < 4; round++) {
        upstream.content.addImage(ALPINE, IMAGE, `t${round}`);
      }
      const { client } = startUpstreamClient(t, [upstream.origin], {
        connectTimeoutMs: 300,
        headersTimeoutMs: 300,
        idleTimeoutMs: 300,
      });
      for (let round = 0; round < 4; round++) {
        const ask = () =>
          upstreamErrorOf(
            client.getManifest(ALPINE, tagReference(`t${round}`), SIGNAL),
          );
        const kind = round < 3 ? "timeout" : "breaker-open";
        assert.equal((await ask()).kind, kind);
        assert.equal(client.isDown(), round >= 2);
        assert.equal((await ask()).kind, "breaker-open");
      }
    });
  }

  void it("do not count requests that the mirror aborted as failures, even in a probe", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin], { clock });
    const askAndLeave = async (): Promise<void> => {
      const leaving = new AbortController();
      const barrier = new Barrier();
      upstream.when({}, { hold: { at: "headers", barrier } }, { times: 1 });
      const asked = upstreamErrorOf(
        client.headManifest(ALPINE, TAG, leaving.signal),
      );
      await barrier.arrived(1);
      leaving.abort();
      assert.equal((await asked).kind, "timeout");
    };
    for (let round = 0; round < 4; round++) await askAndLeave();
    assert.equal(client.isDown(), false);
    upstream.clearRules();
    await upstream.stop();
    await upstreamErrorOf(client.headManifest(ALPINE, TAG, SIGNAL));
    await upstream.restart();
    clock.advance(5_000);
    await askAndLeave();
    assert.equal(client.isDown(), true);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(client.isDown(), false);
  });

  void it("that all fail report an actual failure rather than a rest", async (t) => {
    const first = await startRegistry(t);
    const second = await startRegistry(t);
    const { client } = startUpstreamClient(t, [first.origin, second.origin]);
    await first.stop();
    second.when({}, { status: 504 });
    const kinds: UpstreamErrorKind[] = [];
    for (let round = 0; round < 4; round++) {
      const error = await upstreamErrorOf(
        client.getManifest(ALPINE, tagReference(`t${round}`), SIGNAL),
      );
      kinds.push(error.kind);
      assert.equal(client.isDown(), round >= 2);
    }
    assert.deepEqual(kinds, [
      "unavailable",
      "unavailable",
      "unavailable",
      "breaker-open",
    ]);
  });
});

void describe("a 5xx", () => {
  for (const status of [500, 502, 503]) {
    void it(`${status} is tried once more`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when({}, { status }, { times: 1 });
      const { client, observer } = startUpstreamClient(t, [upstream.origin]);
      await client.headManifest(ALPINE, TAG, SIGNAL);
      assert.equal(upstream.count(), 2);
      assert.deepEqual(observer.faults, []);
    });
  }

  void it("503 with Retry-After is obeyed for that resource only", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t);
    upstream.when(
      { kind: "manifest" },
      { status: 503, headers: { "retry-after": "120" } },
      { times: 1 },
    );
    const { client } = startUpstreamClient(t, [upstream.origin], { clock });
    const head = () => client.headManifest(ALPINE, TAG, SIGNAL);
    const error = await upstreamErrorOf(head());
    assert.equal(error.kind, "unavailable");
    assert.equal(error.retryAfterMs, 120_000);
    clock.advance(119_999);
    const resting = await upstreamErrorOf(head());
    assert.deepEqual([resting.kind, resting.isLocal], ["breaker-open", true]);
    assert.equal(upstream.count(), 1);
    // Other resources are not affected.
    assert.equal(client.isDown(), false);
    await client.headManifest(ALPINE, DIGEST, SIGNAL);
    const { body } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    await buffer(body);
    clock.advance(1);
    await head();
  });

  void it("503 with Retry-After is obeyed for everything after three resources in a row", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t);
    upstream.when({}, { status: 503, headers: { "retry-after": "120" } });
    const { client } = startUpstreamClient(t, [upstream.origin], { clock });
    const ask = (tag: string) =>
      upstreamErrorOf(client.headManifest(ALPINE, tagReference(tag), SIGNAL));
    for (const tag of ["a", "b", "a", "c"]) await ask(tag);
    assert.equal(client.isDown(), true);
    assert.equal(upstream.count(), 3);
    clock.advance(119_999);
    assert.equal((await ask("d")).kind, "breaker-open");
    const blob = await upstreamErrorOf(
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
    );
    assert.equal(blob.kind, "breaker-open");
    assert.equal(upstream.count(), 3);
    upstream.clearRules();
    clock.advance(1);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(client.isDown(), false);
  });
});

void describe("a 429", () => {
  for (const [retryAfter, restMs] of [
    ["60", 60_000],
    [undefined, 30_000],
    ["soon", 30_000],
    ["999999", 900_000],
    ["Thu, 01 Jan 2026 00:01:30 GMT", 90_000],
  ] as const) {
    void it(`with Retry-After ${retryAfter} is answered by the mirror for ${restMs / 1000} s, blobs continue`, async (t) => {
      const clock = new FakeClock();
      const upstream = await startRegistry(t);
      upstream.when(
        { kind: "manifest" },
        { status: 429, headers: { "retry-after": retryAfter } },
        { times: 1 },
      );
      const { client } = startUpstreamClient(t, [upstream.origin], { clock });
      const head = () => client.headManifest(ALPINE, TAG, SIGNAL);
      for (let round = 0; round < 6; round++) {
        const error = await upstreamErrorOf(head());
        assert.equal(error.kind, "rate-limited");
        assert.equal(error.status, 429);
        assert.equal(error.retryAfterMs, restMs);
      }
      assert.equal(client.isDown(), true);
      assert.equal(upstream.count(), 1);
      const { body } = await client.openBlob(ALPINE, LAYER.digest, {
        signal: SIGNAL,
      });
      await buffer(body);
      clock.advance(restMs);
      assert.equal(client.isDown(), false);
      await head();
    });
  }

  for (const [name, fault] of [
    ["a header", { headers: { "retry-after": "0" } }],
    [
      "its text",
      {
        body: '{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 1.16ms, allowed: 44000/minute"}]}',
      },
    ],
  ] as const) {
    void it(`with a pause below a second in ${name} is retried within the request`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when(
        { kind: "manifest" },
        { status: 429, ...fault },
        { times: 2 },
      );
      const { client, observer } = startUpstreamClient(t, [upstream.origin]);
      const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
      assert.deepEqual(bytes, IMAGE.manifest.bytes);
      assert.equal(upstream.count(), 3);
      assert.deepEqual(observer.faults, []);
    });
  }

  void it("with a pause below a second is returned after three retries", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when({}, { status: 429, headers: { "retry-after": "0" } });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const error = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "rate-limited");
    assert.equal(error.retryAfterMs, 1_000);
    assert.equal(upstream.count(), 4);
  });
});

void describe("a 429 for a blob or a list", () => {
  for (const kind of ["blob", "tags", "referrers"] as const) {
    void it(`is remembered for that ${kind} only, until three in a row are answered 429`, async (t) => {
      const clock = new FakeClock();
      const upstream = await startRegistry(t);
      upstream.when(
        { kind },
        { status: 429, headers: { "retry-after": "60" } },
      );
      const { client } = startUpstreamClient(t, [upstream.origin], { clock });
      const ask = (place: number): Promise<unknown> => {
        const repository = repositoryName(`library/r${place}`);
        if (kind === "tags") return client.listTags(repository, SIGNAL);
        return kind === "blob"
          ? client.openBlob(repository, LAYER.digest, { signal: SIGNAL })
          : client.getReferrers(repository, LAYER.digest, SIGNAL);
      };
      for (let place = 0; place < 5; place++) {
        for (let again = 0; again < 2; again++) {
          const error = await upstreamErrorOf(ask(place));
          assert.equal(error.kind, "rate-limited");
          assert.equal(error.retryAfterMs, 60_000);
          assert.equal(error.isLocal, again > 0 || place > 2);
        }
        // Other kinds are not affected.
        await client.headManifest(ALPINE, TAG, SIGNAL);
        assert.equal(client.isDown(), false);
      }
      assert.equal(upstream.count({ kind }), 3);
      clock.advance(60_000);
      await upstreamErrorOf(ask(4));
      assert.equal(upstream.count({ kind }), 4);
    });
  }
});

void describe("a list that fails", () => {
  for (const kind of ["tags", "referrers"] as const) {
    void it(`never closes the endpoint for manifests and blobs, nor for the other lists: ${kind}`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when({ kind }, { status: 504 });
      const { client, observer } = startUpstreamClient(t, [upstream.origin]);
      const ask = (list: string, place: number): Promise<unknown> => {
        const repository = repositoryName(`library/r${place}`);
        return list === "tags"
          ? client.listTags(repository, SIGNAL)
          : client.getReferrers(repository, LAYER.digest, SIGNAL);
      };
      for (let place = 0; place < 5; place++) {
        const error = await upstreamErrorOf(ask(kind, place));
        assert.equal(error.kind, place < 3 ? "unavailable" : "breaker-open");
      }
      assert.equal(client.isDown(), false);
      assert.deepEqual(observer.endpoints, []);
      await client.headManifest(ALPINE, TAG, SIGNAL);
      const other = kind === "tags" ? "referrers" : "tags";
      await ask(other, 9).catch(() => {});
      assert.equal(upstream.count({ kind: other }), 1);
    });
  }
});

void describe("a queue", () => {
  for (const status of [429, 503] as const) {
    void it(`is not sent after a ${status} with Retry-After`, async (t) => {
      const upstream = await startRegistry(t);
      const barrier = new Barrier();
      upstream.when(
        {},
        {
          status,
          headers: { "retry-after": "60" },
          hold: { at: "headers", barrier },
        },
      );
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const asked = Promise.all(
        Array.from({ length: 40 }, () =>
          upstreamErrorOf(client.listTags(ALPINE, SIGNAL)),
        ),
      );
      await barrier.arrived(8);
      barrier.release();
      await asked;
      assert.equal(upstream.count(), 8);
    });
  }
});

void describe("a connection", () => {
  void it("that was closed while idle is replaced, once", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.getManifest(ALPINE, TAG, SIGNAL);
    // Closed at the moment of the next use.
    upstream.when({}, { raw: "" }, { times: 1 });
    const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(bytes, IMAGE.manifest.bytes);
    assert.equal(upstream.count(), 3);
  });

  void it("is kept for the next GET", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    for (let round = 0; round < 20; round++) {
      await client.getManifest(ALPINE, TAG, SIGNAL);
    }
    // undici reuses a connection one turn later; the next request may be sent before.
    assert.ok(upstream.registry.connectionCount <= 2);
  });

  void it("for a blob waits in the mirror's queue, without a failure of the endpoint", async (t) => {
    const upstream = await startRegistry(t);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: 100, barrier } });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      concurrency: 2,
      headersTimeoutMs: 1_000,
    });
    const open = (signal = SIGNAL) =>
      client.openBlob(ALPINE, LAYER.digest, { signal });
    const held = await Promise.all([open(), open()]);
    const leaving = new AbortController();
    const left = upstreamErrorOf(open(leaving.signal));
    const waiting = open();
    leaving.abort();
    assert.equal((await left).kind, "timeout");
    assert.equal(upstream.count(), 2);
    // Manifests have slots of their own.
    await client.headManifest(ALPINE, TAG, SIGNAL);
    barrier.release();
    held[0].body.destroy();
    await buffer((await waiting).body);
    await buffer(held[1].body);
    assert.equal(upstream.count({ kind: "blob" }), 3);
    assert.equal(client.isDown(), false);
  });

  void it("to a black hole is not opened for requests that waited for its slot", async (t) => {
    const upstream = await startRegistry(t);
    upstream.blackHole();
    const { client } = startUpstreamClient(t, [upstream.origin], {
      headersTimeoutMs: 300,
    });
    const errors = await Promise.all(
      Array.from({ length: 30 }, () =>
        upstreamErrorOf(client.listTags(ALPINE, SIGNAL)),
      ),
    );
    const count = (kind: UpstreamErrorKind): number =>
      errors.filter((error) => error.kind === kind).length;
    assert.equal(count("timeout"), 8);
    assert.equal(count("breaker-open"), 22);
    assert.equal(upstream.registry.connectionCount, 8);
  });
});

void describe("a client", () => {
  void it("that is offline dials nothing", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin], {
      offline: true,
    });
    assert.equal(client.isDown(), true);
    const calls = [
      client.headManifest(ALPINE, TAG, SIGNAL),
      client.getManifest(ALPINE, TAG, SIGNAL),
      client.headBlob(ALPINE, LAYER.digest, SIGNAL),
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
      client.listTags(ALPINE, SIGNAL),
      client.getReferrers(ALPINE, LAYER.digest, SIGNAL),
    ];
    for (const call of calls) {
      assert.equal((await upstreamErrorOf(call)).kind, "breaker-open");
    }
    assert.equal(upstream.registry.connectionCount, 0);
  });

  void it("that is closed ends running requests and sends no more", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when({ kind: "blob" }, { stallAt: 100 });
    upstream.when({ kind: "manifest" }, { stallAt: "headers" });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { body } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    const waiting = upstreamErrorOf(client.headManifest(ALPINE, TAG, SIGNAL));
    await upstream.arrived(1, { kind: "manifest" });
    const broken = upstreamErrorOf(buffer(body));
    await client.close();
    assert.equal((await broken).kind, "interrupted");
    await waiting;
    const after = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(after.kind, "breaker-open");
  });
});
