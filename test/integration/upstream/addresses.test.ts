import assert from "node:assert/strict";
import type { LookupAddress } from "node:dns";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { type ProxyConfig, Secret } from "../../../src/config/config.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { NameLookup } from "../../../src/wire/name-lookup.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { ForwardProxy } from "../../support/forward-proxy.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "addresses", layers: [5_000] });
const LAYER = IMAGE.blobs[1] ?? assert.fail("no layer");
const CANARY = "canary-password";
const CREDENTIALS = [{ username: "acme", password: new Secret(CANARY) }];
const USERS = { acme: CANARY };
const REGISTRY = "http://registry.example";

interface Scene {
  readonly upstream: ScriptedUpstream;
  /** A listener on a loopback address, which a public registry must not refer clients to. */
  readonly trap: ScriptedUpstream;
  /** The proxy to the registry, which hides the registry's address from the client. */
  readonly proxy: ProxyConfig;
}

/**
 * A registry that looks remote to the client: it is reached by a proxy, and
 * everything on 127.0.0.0/8 directly.
 */
async function setUp(
  t: AfterTest,
  options: Parameters<typeof ScriptedUpstream.start>[1] = {},
): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(t, options);
  upstream.content.addImage(ALPINE, IMAGE, "1");
  const trap = await ScriptedUpstream.start(t);
  trap.content.addImage(ALPINE, IMAGE, "1");
  const forward = await ForwardProxy.start(t, {
    "registry.example:80": upstream.registry.port,
  });
  const url = new Secret(forward.url);
  return {
    upstream,
    trap,
    proxy: {
      source: "environment",
      https: url,
      http: url,
      noProxy: ["127.0.0.0/8", "::1", "cdn.example", "localhost"],
    },
  };
}

function trapUrl({ trap }: Scene, host = "127.0.0.1"): string {
  return `http://${host}:${trap.registry.port}/v2/${ALPINE}/blobs/${LAYER.digest}`;
}

function open(
  client: ReturnType<typeof startUpstreamClient>["client"],
): ReturnType<typeof client.openBlob> {
  return client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL });
}

void describe("a redirect of a remote registry", () => {
  for (const host of [
    "127.0.0.1",
    "2130706433",
    "0x7f.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "0.0.0.0",
  ]) {
    void it(`to ${host} is refused and not dialled`, async (t) => {
      const scene = await setUp(t);
      const location = trapUrl(scene, host);
      scene.upstream.when(
        { kind: "blob" },
        { status: 307, headers: { location } },
      );
      const { client } = startUpstreamClient(t, [REGISTRY], {
        proxy: {
          ...scene.proxy,
          noProxy: ["*:".concat(String(scene.trap.registry.port))],
        },
      });
      for (let round = 0; round < 4; round++) {
        const error = await upstreamErrorOf(open(client));
        assert.equal(error.kind, "bad-response");
        assert.match(error.message, /loopback address.*redirectHosts/);
      }
      assert.equal(scene.trap.registry.connectionCount, 0);
      assert.equal(client.isDown(), false);
    });
  }

  for (const [host, address] of [
    ["169.254.169.254", undefined],
    ["10.0.0.1", undefined],
    ["[fd00::1]", undefined],
    ["cdn.example", "169.254.169.254"],
    ["cdn.example", "192.168.1.1"],
    ["cdn.example", "::ffff:10.0.0.1"],
    ["cdn.example", "64:ff9b::7f00:1"],
  ] as const) {
    void it(`to ${host}${address === undefined ? "" : ` at ${address}`} is refused, for any time-outs`, async (t) => {
      const scene = await setUp(t);
      const location = `http://${host}/x?sig=canary`;
      scene.upstream.when(
        { kind: "blob" },
        { status: 307, headers: { location } },
      );
      const { client, observer } = startUpstreamClient(t, [REGISTRY], {
        proxy: {
          ...scene.proxy,
          noProxy: [...scene.proxy.noProxy, "0.0.0.0/0", "::/0"],
        },
        resolveName: () =>
          address === undefined
            ? Promise.reject(new Error("an address is not looked up"))
            : Promise.resolve([
                { address, family: address.includes(":") ? 6 : 4 },
              ]),
      });
      const error = await upstreamErrorOf(open(client));
      assert.equal(error.kind, "bad-response");
      assert.match(
        error.message,
        /address; expected a public one, or one that redirectHosts lists/,
      );
      assert.doesNotMatch(JSON.stringify(observer.faults), /canary/);
    });
  }

  for (const [name, redirectHosts] of [
    ["its range", ["127.0.0.0/8"]],
    ["its name", ["127.*.0.1"]],
  ] as const) {
    void it(`is followed without credentials if redirectHosts lists ${name}`, async (t) => {
      const scene = await setUp(t, { auth: { scheme: "basic", users: USERS } });
      const location = trapUrl(scene);
      scene.upstream.when(
        { kind: "blob" },
        { status: 307, headers: { location } },
      );
      const { client } = startUpstreamClient(t, [REGISTRY], {
        proxy: scene.proxy,
        redirectHosts: [...redirectHosts],
        credentials: CREDENTIALS,
      });
      const { body } = await open(client);
      assert.equal(digestOf(await buffer(body)), LAYER.digest);
      const seen = scene.trap.requests();
      assert.equal(seen.length, 1);
      assert.doesNotMatch(JSON.stringify(seen), /authorization|canary/i);
    });
  }

  void it("is checked by the dialled address, so that a name cannot change its address after the check", async (t) => {
    const scene = await setUp(t);
    const location = trapUrl(scene, "cdn.example");
    scene.upstream.when(
      { kind: "blob" },
      { status: 307, headers: { location } },
    );
    const clock = new FakeClock();
    const asked: string[] = [];
    const { client } = startUpstreamClient(t, [REGISTRY], {
      proxy: scene.proxy,
      clock,
      connectTimeoutMs: 200,
      resolveName: (hostname) => {
        asked.push(hostname);
        // TEST-NET-1: a public address without a server.
        const address = asked.length === 1 ? "192.0.2.1" : "127.0.0.1";
        return Promise.resolve([{ address, family: 4 }]);
      },
    });
    await upstreamErrorOf(open(client));
    clock.advance(60_000);
    const error = await upstreamErrorOf(open(client));
    assert.match(error.message, /loopback address/);
    assert.deepEqual(asked, ["cdn.example", "cdn.example"]);
    assert.equal(scene.trap.registry.connectionCount, 0);
  });

  void it("is not checked if a proxy dials", async (t) => {
    const scene = await setUp(t);
    const forward = await ForwardProxy.start(t, {
      "registry.example:80": scene.upstream.registry.port,
      "10.0.0.1:80": scene.trap.registry.port,
    });
    scene.upstream.when(
      { kind: "blob" },
      {
        status: 307,
        headers: {
          location: `http://10.0.0.1/v2/${ALPINE}/blobs/${LAYER.digest}`,
        },
      },
    );
    const url = new Secret(forward.url);
    const { client } = startUpstreamClient(t, [REGISTRY], {
      proxy: { source: "upstream", https: url, http: url, noProxy: [] },
    });
    const { body } = await open(client);
    assert.equal(digestOf(await buffer(body)), LAYER.digest);
  });
});

void describe("a token realm of a remote registry", () => {
  for (const [name, realm] of [
    ["that tokenRealms lists, on loopback", "127.0.0.1"],
    ["that tokenRealms lists, whose name leads to loopback", "localhost"],
  ] as const) {
    void it(`${name}, is not dialled and gets no credential`, async (t) => {
      const scene = await setUp(t);
      const challenge = `Bearer realm="http://${realm}:${scene.trap.registry.port}/token",service="x"`;
      scene.upstream.when(
        {},
        { status: 401, headers: { "www-authenticate": challenge } },
      );
      const { client } = startUpstreamClient(t, [REGISTRY], {
        proxy: scene.proxy,
        credentials: CREDENTIALS,
        tokenRealms: [realm],
      });
      const error = await upstreamErrorOf(
        client.getManifest(ALPINE, TAG, SIGNAL),
      );
      assert.equal(error.kind, "bad-response");
      assert.equal(scene.trap.registry.connectionCount, 0);
    });
  }
});

void describe("a DNS look-up", () => {
  void it("drops addresses that may not be dialled and keeps the others", async () => {
    const addresses: LookupAddress[] = [
      { address: "10.0.0.1", family: 4 },
      { address: "192.0.2.1", family: 4 },
      { address: "2001:db8::1", family: 6 },
    ];
    const lookup = new NameLookup({
      upstream: "a",
      clock: new FakeClock(),
      resolve: () => Promise.resolve(addresses),
    }).asFunction((_, address) =>
      address.startsWith("10.") ? new Error("refused") : undefined,
    );
    const found = await new Promise((resolve) => {
      lookup("cdn.example", { all: true }, (_, all) => resolve(all));
    });
    assert.deepEqual(found, addresses.slice(1));
    const six = await new Promise((resolve) => {
      lookup("cdn.example", { family: 6 }, (_, address) => resolve(address));
    });
    assert.equal(six, "2001:db8::1");
  });

  void it("that never ends runs once, times out, and delays no other upstream", async (t) => {
    const there = await ScriptedUpstream.start(t);
    there.content.addImage(ALPINE, IMAGE, "1");
    const asked: string[] = [];
    const { client: slow } = startUpstreamClient(
      t,
      ["http://slow.example", "http://slower.example"],
      {
        connectTimeoutMs: 300,
        resolveName: (hostname) => {
          asked.push(hostname);
          return new Promise(() => {});
        },
      },
    );
    const { client: other } = startUpstreamClient(t, [
      there.origin.replace("127.0.0.1", "localhost"),
    ]);
    const stuck = Array.from({ length: 50 }, () =>
      upstreamErrorOf(slow.getManifest(ALPINE, TAG, SIGNAL)),
    );
    await other.getManifest(ALPINE, TAG, SIGNAL);
    for (const error of await Promise.all(stuck)) {
      assert.ok(["timeout", "breaker-open"].includes(error.kind), error.kind);
    }
    assert.equal(slow.isDown(), true);
    // The second name waits for the one look-up that an upstream may have.
    assert.deepEqual(asked, ["slow.example"]);
  });

  void it("is shared by concurrent callers, cached briefly, and then repeated", async () => {
    const clock = new FakeClock();
    let count = 0;
    const lookup = new NameLookup({
      upstream: "a",
      clock,
      resolve: () => {
        count += 1;
        return Promise.resolve([{ address: "192.0.2.1", family: 4 }]);
      },
    });
    await Promise.all(
      Array.from({ length: 20 }, () => lookup.addresses("x.example")),
    );
    clock.advance(9_999);
    await lookup.addresses("x.example");
    assert.equal(count, 1);
    clock.advance(1);
    await lookup.addresses("x.example");
    assert.equal(count, 2);
  });
});
