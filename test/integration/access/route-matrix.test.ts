import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import type { AccessConfig } from "../../../src/config/config.ts";
import { ROUTE_RIGHTS } from "../../../src/http/client-auth/route-rights.ts";
import { createRegistryListener } from "../../../src/http/registry/registry-routes.ts";
import { negativeRefusal } from "../../../src/mirror/answers.ts";
import type { Mirror } from "../../../src/mirror/mirror.ts";
import { createRoutes } from "../../../src/routing/routes.ts";
import { parseDistributionPath } from "../../../src/oci/path.ts";
import { NO_AUDIT } from "../../../src/telemetry/audit.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import {
  accessConfig,
  basic,
  startTokenIssuer,
  type TokenAccess,
  writeHtpasswd,
} from "../../support/access.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildArtifact, buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { type RawResponse, startRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { upstreamConfig } from "../../support/upstream-harness.ts";

/*
 * Every visitor requests every route. The routes are those of the program's own table, so that a
 * new route does not compile until its requests are listed here.
 */

const PUBLIC = "pub/app";
const PRIVATE = "team/secret";
/** Absent repositories, one that the rules allow and one that they do not. */
const PUBLIC_ABSENT = "pub/gone";
const PRIVATE_ABSENT = "team/gone";

const SIGNATURE_TYPE = "application/vnd.example.signature";
const IMAGE = buildImage({ seed: "matrix" });
const SIGNATURE = buildArtifact({
  seed: "matrix-signature",
  subject: IMAGE.manifest,
  artifactType: SIGNATURE_TYPE,
});
/** An image of the private repository only. */
const SECRET = buildImage({ seed: "matrix-secret" });
const [LAYER] = IMAGE.layers;
assert.ok(LAYER);

type Kind = keyof typeof ROUTE_RIGHTS;

interface Cell {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** The status for a visitor with the right. */
  readonly status: number;
  readonly isDelete?: boolean;
}

const reads = (path: string, status = 200): Cell[] =>
  ["GET", "HEAD"].map((method) => ({ method, path, status }));

const unchanged = (path: string, digest: string): Cell[] =>
  [`W/"${digest}"`, `"x", "${digest}"`, "*"].map((etag) => ({
    method: "GET",
    path,
    headers: { "If-None-Match": etag },
    status: 304,
  }));

const ranged = (path: string): Cell[] =>
  [
    ["bytes=0-", 206],
    ["bytes=1-2", 206],
    ["bytes=-1", 206],
    ["bytes=99999999-", 416],
    ["bytes=0-0,2-3", 206],
  ].map(([range, status]) => ({
    method: "GET",
    path,
    headers: { Range: String(range) },
    status: Number(status),
  }));

/** Requests that change nothing here: their repositories are mirrored. */
const writes = (path: string): Cell[] =>
  ["POST", "PUT", "PATCH", "OPTIONS"].map((method) => ({
    method,
    path,
    status: 405,
  }));

/** Needs the right to delete, which no visitor has. */
const deletes = (path: string): Cell[] => [
  { method: "DELETE", path, status: 405, isDelete: true },
];

/** The requests of each kind of route. */
const CELLS: Readonly<Record<Kind, (repository: string) => readonly Cell[]>> = {
  ping: () => [
    ...reads("/v2/"),
    ...writes("/v2/"),
    { method: "DELETE", path: "/v2/", status: 405 },
  ],
  catalog: () => [
    ...reads("/v2/_catalog"),
    ...reads("/v2/_catalog?n=1"),
    ...writes("/v2/_catalog"),
    { method: "DELETE", path: "/v2/_catalog", status: 405 },
  ],
  manifest: (repository) =>
    ["v", IMAGE.manifest.digest].flatMap((reference) => {
      const path = `/v2/${repository}/manifests/${reference}`;
      return [
        ...reads(path),
        ...reads(`${path}?ns=registry.example`),
        ...unchanged(path, IMAGE.manifest.digest),
        ...writes(path),
        ...deletes(path),
      ];
    }),
  blob: (repository) => {
    const path = `/v2/${repository}/blobs/${LAYER.digest}`;
    return [
      ...reads(path),
      ...reads(`/v2/registry.example/${repository}/blobs/${LAYER.digest}`),
      ...reads(`/v2/${repository}/blobs/${IMAGE.config.digest}`),
      // A manifest is a blob too.
      ...reads(`/v2/${repository}/blobs/${IMAGE.manifest.digest}`),
      ...unchanged(path, LAYER.digest),
      ...ranged(path),
      ...writes(path),
      ...deletes(path),
    ];
  },
  tags: (repository) => [
    ...reads(`/v2/${repository}/tags/list`),
    ...writes(`/v2/${repository}/tags/list`),
    ...deletes(`/v2/${repository}/tags/list`),
    ...reads(`/v2/${repository}/tags/list?n=1&last=a`),
  ],
  referrers: (repository) => {
    const path = `/v2/${repository}/referrers/${IMAGE.manifest.digest}`;
    return [
      ...reads(path),
      ...reads(`${path}?artifactType=${SIGNATURE_TYPE}`),
      ...writes(path),
      ...deletes(path),
    ];
  },
  upload: (repository) => [
    {
      method: "POST",
      path: `/v2/${repository}/blobs/uploads/`,
      status: 405,
    },
    {
      method: "POST",
      path: `/v2/${repository}/blobs/uploads/?mount=${LAYER.digest}&from=${PRIVATE}`,
      status: 405,
    },
    ...["GET", "HEAD", "DELETE"].map((method) => ({
      method,
      path: `/v2/${repository}/blobs/uploads/session`,
      status: 405,
    })),
    ...writes(`/v2/${repository}/blobs/uploads/session`),
  ],
};

const KINDS = Object.keys(ROUTE_RIGHTS) as Kind[];

interface Visitor {
  readonly name: string;
  readonly authorization: string | undefined;
  /** Is admitted even without anonymous access. */
  readonly isKnown: boolean;
  readonly seesPublic: boolean;
  readonly seesPrivate: boolean;
  /** Whether its token lacks grants, which is answered 401 with insufficient_scope instead of 404. */
  readonly lacksGrant?: boolean;
  /** Whether its requests count as failed log-ins, so that time has to pass before each. */
  readonly isCounted?: boolean;
}

interface Door {
  readonly name: string;
  readonly access: AccessConfig;
  readonly challenge: RegExp;
  readonly isAnonymousLetIn: boolean;
  /** Whether visitors are known by tokens, which grant no deletion. */
  readonly tokens?: boolean;
  /** Visitors without private rights come first, so that they find an empty cache. */
  readonly visitors: readonly Visitor[];
}

const RULES: AccessConfig["rules"] = [
  { who: ["*"], repositories: ["registry.example/pub/**"], actions: ["pull"] },
  {
    who: ["alice"],
    repositories: ["registry.example/team/**"],
    actions: ["pull"],
  },
];

const withoutRights = { isKnown: false, seesPublic: false, seesPrivate: false };

async function passwordDoor(
  test: AfterTest,
  anonymous: "pull" | "none",
): Promise<Door> {
  const visitors: Visitor[] = [
    { ...withoutRights, name: "anonymous", authorization: undefined },
    {
      ...withoutRights,
      name: "skopeo without a user",
      authorization: "Basic Og==",
    },
    { ...withoutRights, name: "bad base64", authorization: "Basic %%%" },
    { ...withoutRights, name: "another scheme", authorization: "Digest x=y" },
    {
      ...withoutRights,
      name: "a token of another issuer",
      authorization: "Bearer a.b.c",
    },
    {
      ...withoutRights,
      name: "an unknown user",
      authorization: basic("mallory", "right horse"),
      isCounted: true,
    },
    {
      ...withoutRights,
      name: "a wrong password",
      authorization: basic("alice", "wrong"),
      isCounted: true,
    },
  ];
  const isAnonymousLetIn = anonymous === "pull";
  return {
    name: `passwords, anonymous: ${anonymous}`,
    access: accessConfig({
      htpasswdFile: await writeHtpasswd(test, {
        alice: "right horse",
        bob: "bob's",
      }),
      anonymous,
      rules: RULES,
    }),
    challenge: /^Basic realm="entrepot"$/,
    isAnonymousLetIn,
    visitors: [
      ...visitors.map((one) => ({ ...one, seesPublic: isAnonymousLetIn })),
      {
        name: "bob",
        authorization: basic("bob", "bob's"),
        isKnown: true,
        seesPublic: true,
        seesPrivate: false,
      },
      {
        name: "alice",
        authorization: basic("alice", "right horse"),
        isKnown: true,
        seesPublic: true,
        seesPrivate: true,
      },
    ],
  };
}

function grantsFor(...names: readonly string[]): TokenAccess[] {
  return names.map((name) => ({ type: "repository", name, actions: ["pull"] }));
}

const EVERYTHING: readonly TokenAccess[] = [
  { type: "registry", name: "catalog", actions: ["*"] },
  ...grantsFor(PUBLIC, PUBLIC_ABSENT, PRIVATE, PRIVATE_ABSENT),
];

async function tokenDoor(test: AfterTest): Promise<Door> {
  const issuer = await startTokenIssuer(test, () => Date.UTC(2026, 0, 1));
  const long = { exp: Date.UTC(2027, 0, 1) / 1000 };
  const bearer = async (...args: Parameters<typeof issuer.sign>) =>
    `Bearer ${await issuer.sign(...args)}`;
  const known = { isKnown: true, seesPublic: true };
  return {
    name: "tokens, anonymous: none",
    access: accessConfig({
      tokenServer: issuer.config,
      anonymous: "none",
      rules: RULES,
    }),
    challenge:
      /^Bearer realm="https:\/\/auth\.example\/token",service="mirror\.example"/,
    isAnonymousLetIn: false,
    tokens: true,
    visitors: [
      { ...withoutRights, name: "anonymous", authorization: undefined },
      {
        ...withoutRights,
        name: "a password although tokens are required",
        authorization: basic("alice", "right horse"),
      },
      {
        ...withoutRights,
        name: "an expired token",
        authorization: await bearer(EVERYTHING, { exp: 1, sub: "alice" }),
      },
      {
        ...known,
        name: "a token for the public repositories only",
        authorization: await bearer(grantsFor(PUBLIC, PUBLIC_ABSENT), {
          ...long,
          sub: "alice",
        }),
        seesPrivate: false,
        lacksGrant: true,
      },
      {
        ...known,
        name: "a token for everything, of a user without a matching rule",
        authorization: await bearer(EVERYTHING, long),
        seesPrivate: false,
      },
      {
        ...known,
        name: "a token for everything, of alice",
        authorization: await bearer(EVERYTHING, {
          ...long,
          sub: "alice",
        }),
        seesPrivate: true,
      },
    ],
  };
}

const ANY_HOUR_MS = 3_600_000;

interface Scene {
  readonly door: Door;
  readonly mirror: TestMirror;
  readonly upstream: ScriptedUpstream;
}

function ask(
  { mirror }: Scene,
  visitor: Visitor,
  cell: Cell,
): Promise<RawResponse> {
  if (visitor.isCounted === true) mirror.clock.advance(60_000);
  return mirror.start(cell.path, {
    method: cell.method,
    headers: {
      ...cell.headers,
      ...(visitor.authorization === undefined
        ? {}
        : { Authorization: visitor.authorization }),
    },
  }).response;
}

/** Returns status, headers and body, without the date. */
function look(response: RawResponse): unknown {
  const { date: _, ...headers } = response.headers;
  return [response.status, headers, response.body.toString()];
}

type Expected =
  "allowed" | "challenge" | "absent" | "insufficient scope" | "refused";

/** Returns the expected result, written independently of the program. */
function expected(
  door: Door,
  visitor: Visitor,
  kind: Kind,
  cell: Cell,
  isPrivate: boolean,
): Expected {
  if (!visitor.isKnown && !door.isAnonymousLetIn) return "challenge";
  if (kind === "catalog" && visitor.lacksGrant === true) {
    return "insufficient scope";
  }
  if (cell.isDelete === true) {
    if (!visitor.isKnown) return "challenge";
    return door.tokens === true ? "insufficient scope" : "refused";
  }
  const isOpen = kind === "ping" || kind === "catalog" || cell.status === 405;
  if (isOpen) return "allowed";
  const sees = isPrivate ? visitor.seesPrivate : visitor.seesPublic;
  if (sees) return "allowed";
  return visitor.lacksGrant === true ? "insufficient scope" : "absent";
}

async function assertAll(scene: Scene, phase: string): Promise<number> {
  const { door, upstream } = scene;
  let cells = 0;
  for (const visitor of door.visitors) {
    for (const kind of KINDS) {
      for (const [isPrivate, there, absent] of [
        [false, PUBLIC, PUBLIC_ABSENT],
        [true, PRIVATE, PRIVATE_ABSENT],
      ] as const) {
        const absentCells = CELLS[kind](absent);
        for (const [index, cell] of CELLS[kind](there).entries()) {
          const label = `${phase}: ${visitor.name}: ${cell.method} ${cell.path} ${JSON.stringify(cell.headers)}`;
          const asked = upstream.count();
          const response = await ask(scene, visitor, cell);
          const want = expected(door, visitor, kind, cell, isPrivate);
          cells += 1;
          if (kind === "manifest") {
            // The first request read from disk; the second one is answered from memory by another path.
            const again = await ask(scene, visitor, cell);
            assert.equal(again.status, response.status, `${label}, again`);
            if (want !== "allowed") {
              assert.deepEqual(look(again), look(response), `${label}, again`);
            }
          }
          const { status, headers } = response;
          const challenge = headers["www-authenticate"];
          switch (want) {
            case "allowed":
              assert.equal(status, cell.status, label);
              assert.equal(challenge, undefined, label);
              if (kind === "catalog" && cell.method === "GET") {
                const isWhole =
                  phase !== "cold, then warm" && !cell.path.includes("n=1");
                assertSeesOnly(visitor, response, isWhole, label);
              }
              break;
            case "challenge":
              assert.equal(status, 401, label);
              assert.match(challenge ?? "", door.challenge, label);
              break;
            case "insufficient scope":
              assert.equal(status, 401, label);
              assert.match(challenge ?? "", /insufficient_scope/, label);
              break;
            case "refused":
              assert.equal(status, 403, label);
              assert.equal(challenge, undefined, label);
              break;
            case "absent":
              assert.equal(status, 404, label);
              assert.equal(challenge, undefined, label);
              break;
          }
          if (want === "allowed") continue;
          // The response reveals nothing of the repository, not even whether it exists.
          const other = absentCells[index];
          assert.ok(other);
          const notThere = await ask(scene, visitor, other);
          const shown = JSON.stringify(look(response));
          assert.equal(
            shown,
            JSON.stringify(look(notThere)).replaceAll(absent, there),
            label,
          );
          assert.ok(!shown.includes(LAYER?.digest ?? ""), label);
          // Response times do not differ either: neither is requested from the upstream.
          assert.equal(upstream.count(), asked, label);
        }
      }
    }
  }
  return cells;
}

function assertSeesOnly(
  visitor: Visitor,
  response: RawResponse,
  isWhole: boolean,
  label: string,
): void {
  const text = JSON.stringify(response.headers) + response.body.toString();
  const seen = [
    [PUBLIC, visitor.seesPublic],
    [PRIVATE, visitor.seesPrivate],
  ] as const;
  for (const [repository, isSeen] of seen) {
    const isThere = text.includes(repository);
    assert.ok(isSeen || !isThere, label);
    if (isWhole) assert.equal(isThere, isSeen, label);
  }
}

async function openScene(test: AfterTest, door: Door): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  for (const repository of [PUBLIC, PRIVATE]) {
    upstream.content.addImage(repository, IMAGE, "v");
    upstream.content.addImage(repository, SIGNATURE);
  }
  const config = upstreamOf(upstream);
  const mirror = await startMirror(
    test,
    [
      {
        ...config,
        // A held download is not requested again, for any duration of the test.
        idleTimeoutMs: ANY_HOUR_MS,
        freshness: { ...config.freshness, tagTtlMs: 1_000 * ANY_HOUR_MS },
      },
    ],
    { access: door.access },
  );
  return { door, mirror, upstream };
}

/** Asserts that no client without rights notices the running download of another client. */
async function assertNotJoined(scene: Scene): Promise<void> {
  const { door, mirror, upstream } = scene;
  const owner = door.visitors.find(({ seesPrivate }) => seesPrivate);
  assert.ok(owner);
  const barrier = new Barrier();
  upstream.when(
    { kind: "blob", method: "GET" },
    { hold: { at: 1, barrier } },
    { times: 1 },
  );
  const path = `/v2/${PRIVATE}/blobs/${LAYER?.digest}`;
  const headers = { Authorization: owner.authorization ?? "" };
  const running = mirror.start(path, { headers });
  await running.answered();
  const asked = upstream.count();
  for (const visitor of door.visitors.filter((one) => !one.seesPrivate)) {
    for (const cell of CELLS.blob(PRIVATE)) {
      const { status, bodyBytes } = await ask(scene, visitor, cell);
      const isOpen = cell.status === 405 && status === 405;
      const isRefused = [401, 403, 404].includes(status);
      assert.ok(isOpen || isRefused, visitor.name);
      assert.ok(bodyBytes < 200);
    }
  }
  assert.equal(upstream.count(), asked);
  barrier.release();
  assert.equal((await running.response).sha256, LAYER?.digest);
  await mirror.settled();
}

/** Creates a mirror that records calls and fails, except for the response to absent content. */
function createMirrorOfNothing(asked: string[]): Mirror {
  return new Proxy({} as Mirror, {
    get: (_target, name) =>
      name === "absence"
        ? negativeRefusal
        : () => {
            asked.push(String(name));
            throw new Error(`unexpected call of ${String(name)}`);
          },
  });
}

void describe("the routes", () => {
  void it("are all authorized before the first call of the mirror", async (test) => {
    const judged: string[] = [];
    const asked: string[] = [];
    const listener = createRegistryListener({
      mirror: createMirrorOfNothing(asked),
      currentRoutes: () => createRoutes([upstreamConfig([])]),
      access: {
        isRestricting: true,
        hasRules: true,
        judge: (_request, { path }) => {
          judged.push(path.target.kind);
          return { kind: "denied", user: undefined, refusal: undefined };
        },
        prepare: () => Promise.reject(new Error("unexpected call")),
        close: () => Promise.resolve(),
      },
      clientAddress: () => "192.0.2.1",
      audit: NO_AUDIT,
      log: createLogger({ level: "fatal" }, { write: () => {} }),
      metrics: createMetrics("0"),
      instanceId: "x",
      purgeImage: () => Promise.reject(new Error("unexpected call")),
      listCatalog: () => Promise.reject(new Error("unexpected call")),
    });
    const server = createServer(listener);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    releaseAfter(test, () => void server.close());
    const { port } = server.address() as AddressInfo;
    for (const kind of KINDS) {
      for (const { method, path, headers } of CELLS[kind](PRIVATE)) {
        judged.length = 0;
        const request = { port, method, path, ...(headers && { headers }) };
        const { status } = await startRequest(request).response;
        assert.deepEqual([status, judged], [404, [kind]], `${method} ${path}`);
      }
    }
    assert.deepEqual(asked, []);
  });

  void it("are requested by paths of their own kind", () => {
    for (const kind of KINDS) {
      for (const { path } of CELLS[kind](PRIVATE)) {
        const parsed = parseDistributionPath(path);
        assert.ok(parsed.ok, path);
        assert.equal(parsed.target.kind, kind, path);
      }
    }
  });
});

void describe("every visitor at every route", () => {
  const doors: Readonly<Record<string, (test: AfterTest) => Promise<Door>>> = {
    "passwords, no anonymous access": (test) => passwordDoor(test, "none"),
    "passwords, anonymous pulls": (test) => passwordDoor(test, "pull"),
    "tokens, no anonymous access": tokenDoor,
  };
  for (const [name, makeDoor] of Object.entries(doors)) {
    void it(`${name}: with a cold cache, a warm one, and the upstream down`, async (test) => {
      const door = await makeDoor(test);
      const scene = await openScene(test, door);
      const { upstream, mirror } = scene;

      // A visitor without rights causes no upstream request.
      for (const visitor of door.visitors.filter((one) => !one.seesPrivate)) {
        for (const cell of KINDS.flatMap((kind) => CELLS[kind](PRIVATE))) {
          await ask(scene, visitor, cell);
        }
      }
      assert.equal(upstream.count(), 0);

      await assertNotJoined(scene);
      const warm = await assertAll(scene, "cold, then warm");
      assert.equal(await assertAll(scene, "warm"), warm);
      mirror.clock.advance(1_001 * ANY_HOUR_MS);
      await upstream.stop();
      if (!door.name.startsWith("tokens")) {
        assert.equal(await assertAll(scene, "stale"), warm);
      }
      test.diagnostic(`${warm} cells in each phase`);
    });
  }

  void it("a digest of the private repository is unknown in the public one", async (test) => {
    const door = await passwordDoor(test, "none");
    const scene = await openScene(test, door);
    const { upstream, mirror } = scene;
    upstream.content.addImage(PRIVATE, SECRET, "secret");
    const [bob, alice] = ["bob", "alice"].map((name) =>
      door.visitors.find((visitor) => visitor.name === name),
    );
    assert.ok(bob && alice);
    const [secretLayer] = SECRET.layers;
    assert.ok(secretLayer);
    const paths = [
      `manifests/${SECRET.manifest.digest}`,
      `blobs/${SECRET.manifest.digest}`,
      `blobs/${secretLayer.digest}`,
    ];
    // By name and by digest: the manifest is in memory, its blobs are stored.
    for (const path of ["manifests/secret", "manifests/secret", ...paths]) {
      const cell = { method: "GET", path: `/v2/${PRIVATE}/${path}` };
      const { status } = await ask(scene, alice, { ...cell, status: 200 });
      assert.equal(status, 200, path);
    }
    await mirror.settled();
    const nowhere = `sha256:${"0".repeat(64)}`;
    const asks: readonly Omit<Cell, "path" | "status">[] = [
      { method: "GET" },
      { method: "GET", headers: { Range: "bytes=0-0" } },
      { method: "GET", headers: { "If-None-Match": "*" } },
      { method: "HEAD" },
    ];
    for (const visitor of [bob, alice]) {
      for (const how of asks) {
        for (const path of paths) {
          const label = `${visitor.name} ${JSON.stringify(how)} ${path}`;
          const absent = path.replace(/sha256:.*/, nowhere);
          // Remembered absence expires.
          mirror.clock.advance(60_000);
          const seen: unknown[] = [];
          for (const wanted of [absent, path, absent, path]) {
            // Loads the manifest and its link to its own repository into memory.
            const own = `/v2/${PRIVATE}/manifests/${SECRET.manifest.digest}`;
            for (let twice = 0; twice < 2; twice++) {
              await ask(scene, alice, { method: "GET", path: own, status: 0 });
            }
            upstream.forgetRequests();
            const cell = { ...how, path: `/v2/${PUBLIC}/${wanted}`, status: 0 };
            const response = await ask(scene, visitor, cell);
            seen.push([look(response), upstream.count()]);
          }
          const [[, asked] = []] = seen as [unknown, number][];
          assert.equal(asked, 1, label);
          // The first two cause one upstream request each, and the next two are answered from memory.
          assert.deepEqual(seen[1], seen[0], label);
          assert.deepEqual(seen[3], seen[2], label);
          assert.deepEqual((seen[3] as [unknown, number])[1], 0, label);
        }
      }
    }
  });

  void it("forbidden content gets exactly the response of absent content", async (test) => {
    const door = await passwordDoor(test, "none");
    const scene = await openScene(test, door);
    const bob = door.visitors.find(({ name }) => name === "bob");
    assert.ok(bob);
    // Not referrers: an existing repository without referrers answers an empty index.
    for (const kind of ["manifest", "blob", "tags"] as const) {
      const absent = CELLS[kind](PUBLIC_ABSENT);
      for (const [index, cell] of CELLS[kind](PRIVATE).entries()) {
        const other = absent[index];
        if (cell.status === 405 || other === undefined) continue;
        const first = look(await ask(scene, bob, other));
        assert.deepEqual(look(await ask(scene, bob, other)), first);
        assert.deepEqual(look(await ask(scene, bob, cell)), first, cell.path);
      }
    }
  });
});
