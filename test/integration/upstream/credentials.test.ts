import assert from "node:assert/strict";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Secret, type UpstreamCredential } from "../../../src/config/config.ts";
import { Barrier } from "../../support/barrier.ts";
import { makeHelper } from "../../support/credential-helper.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import type { UpstreamAuth } from "../../support/scripted-tokens.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { type AfterTest, tempDir } from "../../support/temp-dir.ts";
import {
  ALPINE,
  repositoryName,
  SIGNAL,
  startUpstreamClient,
  TAG,
  type TestClient,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const BUSYBOX = repositoryName("library/busybox");
const IMAGE = buildImage({ seed: "credentials" });
const USERS = { acme: "canary-one", other: "canary-two" };
const BASIC = { scheme: "basic", users: USERS } as const;
const BEARER = { scheme: "bearer", users: USERS, anonymous: false } as const;

interface Setup extends TestClient {
  readonly upstream: ScriptedUpstream;
  readonly clock: FakeClock;
  /** Pulls the tag's manifest. */
  pull(): Promise<void>;
}

async function setUp(
  test: AfterTest,
  auth: UpstreamAuth,
  credentials: (
    upstream: ScriptedUpstream,
  ) => readonly UpstreamCredential[] | Promise<readonly UpstreamCredential[]>,
): Promise<Setup> {
  const clock = new FakeClock();
  const upstream = await ScriptedUpstream.start(test, { auth, clock });
  upstream.content.addImage(ALPINE, IMAGE, "1");
  const { client, observer } = startUpstreamClient(test, [upstream.origin], {
    clock,
    credentials: await credentials(upstream),
  });
  return {
    upstream,
    clock,
    client,
    observer,
    async pull() {
      await client.getManifest(ALPINE, TAG, SIGNAL);
    },
  };
}

/** The config.json that `docker login` writes. */
async function dockerConfig(
  test: AfterTest,
  content: unknown,
): Promise<string> {
  const file = join(await tempDir(test), "config.json");
  await writeSecret(file, JSON.stringify(content));
  return file;
}

function writeSecret(file: string, text: string): Promise<void> {
  return writeFile(file, text, { mode: 0o600 });
}

function pair(user: string, password: string): { auth: string } {
  return { auth: Buffer.from(`${user}:${password}`).toString("base64") };
}

/** Users of the answered requests, in order, without repetitions. */
function usersOf({ upstream }: Setup): readonly string[] {
  const users = upstream
    .requests({ status: 200 })
    .map(({ headers, method, body }) => {
      const encoded = /^Basic (.+)$/.exec(headers["authorization"] ?? "")?.[1];
      if (encoded !== undefined) {
        return Buffer.from(encoded, "base64").toString();
      }
      return method === "POST" ? body.toString() : "";
    });
  return [...new Set(users)].filter((user) => user !== "");
}

async function withToken(
  test: AfterTest,
  auth: UpstreamAuth,
  entry: Record<string, string> = {},
): Promise<Setup> {
  return setUp(test, auth, async ({ host }) => [
    {
      dockerConfigFile: await dockerConfig(test, {
        auths: { [host]: { ...entry, identitytoken: "canary-refresh" } },
      }),
    },
  ]);
}

/** Two accounts, the first with this password. */
function pool(first: string): readonly UpstreamCredential[] {
  return [
    { username: "acme", password: new Secret(first) },
    { username: "other", password: new Secret(USERS.other) },
  ];
}

void describe("a Docker config.json", () => {
  for (const auth of [BASIC, BEARER]) {
    void it(`provides the password of the endpoint's own host, by ${auth.scheme}`, async (t) => {
      const setup = await setUp(t, auth, async ({ host }) => [
        {
          dockerConfigFile: await dockerConfig(t, {
            auths: {
              "https://index.docker.io/v1/": pair("hub", "canary-hub"),
              [host]: pair("acme", USERS.acme),
            },
          }),
        },
      ]);
      await setup.pull();
      assert.deepEqual(usersOf(setup), ["acme:canary-one"]);
    });
  }

  void it("without that host leads to anonymous requests, without another host's password", async (t) => {
    const setup = await setUp(t, BASIC, async () => [
      {
        dockerConfigFile: await dockerConfig(t, {
          auths: {
            "registry.example": pair("acme", USERS.acme),
            "127.0.0.1": pair("acme", USERS.acme),
          },
        }),
      },
    ]);
    const error = await upstreamErrorOf(setup.pull());
    assert.equal(error.kind, "unauthorized");
    for (const { headers } of setup.upstream.requests()) {
      assert.equal(headers["authorization"], undefined);
    }
  });

  void it("names a helper for the host, which goes before logins in the file", async (t) => {
    const helper = await makeHelper(t, "docker-credential-corp");
    await helper.gives("other", USERS.other);
    const path = process.env["PATH"];
    process.env["PATH"] = `${join(helper.program, "..")}:${path}`;
    try {
      const setup = await setUp(t, BASIC, async ({ host }) => [
        {
          dockerConfigFile: await dockerConfig(t, {
            auths: { [host]: pair("acme", USERS.acme) },
            credHelpers: { [host]: "corp" },
          }),
        },
      ]);
      await setup.pull();
      assert.deepEqual(usersOf(setup), ["other:canary-two"]);
      assert.deepEqual(await helper.runs(), [`get ${setup.upstream.host}`]);
    } finally {
      process.env["PATH"] = path;
    }
  });

  void it("has a store, and provides logins that the store lacks", async (t) => {
    const helper = await makeHelper(t, "docker-credential-store");
    await helper.does(
      "echo 'credentials not found in native keychain'; exit 1",
    );
    const path = process.env["PATH"];
    process.env["PATH"] = `${join(helper.program, "..")}:${path}`;
    try {
      const setup = await setUp(t, BASIC, async ({ host }) => [
        {
          dockerConfigFile: await dockerConfig(t, {
            auths: { [host]: pair("acme", USERS.acme) },
            credsStore: "store",
          }),
        },
      ]);
      await setup.pull();
      await setup.pull();
      assert.deepEqual(usersOf(setup), ["acme:canary-one"]);
      assert.equal((await helper.runs()).length, 1);
    } finally {
      process.env["PATH"] = path;
    }
  });

  void it("is read again after it was replaced", async (t) => {
    let file = "";
    const setup = await setUp(t, BASIC, async ({ host }) => {
      file = await dockerConfig(t, {
        auths: { [host]: pair("acme", USERS.acme) },
      });
      return [{ dockerConfigFile: file }];
    });
    await setup.pull();
    const { host } = setup.upstream;
    await writeSecret(
      `${file}.new`,
      JSON.stringify({ auths: { [host]: pair("other", USERS.other) } }),
    );
    await rename(`${file}.new`, file);
    await setup.pull();
    assert.deepEqual(usersOf(setup), ["acme:canary-one", "other:canary-two"]);
    // An incomplete file is ignored.
    await writeFile(file, '{"auths":');
    await setup.pull();
    assert.deepEqual(usersOf(setup), ["acme:canary-one", "other:canary-two"]);
  });
});

void describe("an identity token", () => {
  const REFRESH = {
    ...BEARER,
    refreshTokens: { "canary-refresh": "acme" },
  } as const;

  void it("is sent to the realm by POST, in the body only", async (t) => {
    const setup = await withToken(t, REFRESH);
    await setup.pull();
    const [request, ...others] = setup.upstream.requests({ kind: "token" });
    assert.equal(others.length, 0);
    assert.equal(request?.method, "POST");
    assert.equal(request.target, "/token");
    assert.equal(request.headers["authorization"], undefined);
    assert.equal(
      request.headers["content-type"],
      "application/x-www-form-urlencoded",
    );
    assert.deepEqual(
      Object.fromEntries(new URLSearchParams(request.body.toString())),
      {
        client_id: "entrepot",
        service: "scripted",
        scope: "repository:library/alpine:pull",
        grant_type: "refresh_token",
        refresh_token: "canary-refresh",
      },
    );
    for (const { target } of setup.upstream.requests()) {
      assert.doesNotMatch(target, /canary/);
    }
  });

  for (const postStatus of [400, 401, 404, 405] as const) {
    void it(`is sent by GET after a POST was answered ${postStatus}, and then by GET only`, async (t) => {
      const setup = await withToken(
        t,
        { ...REFRESH, postStatus, expiresInSeconds: 60 },
        pair("acme", ""),
      );
      await setup.pull();
      setup.clock.advance(60_000);
      await setup.pull();
      assert.deepEqual(
        setup.upstream
          .requests({ kind: "token" })
          .map(({ method, status }) => [method, status]),
        [
          ["POST", postStatus],
          ["GET", 200],
          ["GET", 200],
        ],
      );
      assert.deepEqual(usersOf(setup), ["acme:canary-refresh"]);
    });
  }

  void it("that GET and POST refuse is refused, and not sent again immediately", async (t) => {
    const setup = await withToken(t, {
      ...REFRESH,
      refreshTokens: {},
    });
    for (let round = 0; round < 3; round++) {
      const error = await upstreamErrorOf(setup.pull());
      assert.equal(error.kind, "unauthorized");
      assert.doesNotMatch(error.message, /canary/);
    }
    assert.deepEqual(
      setup.upstream.requests({ kind: "token" }).map(({ method }) => method),
      ["POST", "GET"],
    );
  });

  void it("may be provided by a helper", async (t) => {
    const helper = await makeHelper(t);
    await helper.gives("<token>", "canary-refresh");
    const setup = await setUp(t, REFRESH, () => [{ helper: helper.program }]);
    await setup.pull();
    assert.equal(setup.upstream.requests({ kind: "token" })[0]?.method, "POST");
  });
});

void describe("a credential helper", () => {
  void it("is run once for concurrent pulls", async (t) => {
    const helper = await makeHelper(t);
    await helper.gives("acme", USERS.acme);
    const setup = await setUp(t, BASIC, () => [{ helper: helper.program }]);
    await Promise.all(Array.from({ length: 20 }, () => setup.pull()));
    await setup.pull();
    assert.deepEqual(await helper.runs(), [`get ${setup.upstream.host}`]);
  });

  void it("is run again before its twelve hours are over, and its login stays if that fails", async (t) => {
    const helper = await makeHelper(t);
    const clock = new FakeClock();
    const password = (name: string, lifeMs: number): string =>
      Buffer.from(
        JSON.stringify({
          payload: name,
          version: "2",
          type: "DATA_KEY",
          expiration: (clock.nowMs() + lifeMs) / 1_000,
        }),
      ).toString("base64");
    const hourMs = 3_600_000;
    const first = password("first", 12 * hourMs);
    const second = password("second", 24 * hourMs);
    await helper.gives("AWS", first);
    const users: Record<string, string> = { AWS: first };
    const setup = await setUp(t, { scheme: "basic", users }, () => [
      { helper: helper.program },
    ]);
    await setup.pull();
    setup.clock.advance(10 * hourMs);
    await setup.pull();
    assert.equal((await helper.runs()).length, 1);

    setup.clock.advance(0.8 * hourMs);
    await helper.does("exit 1");
    await setup.pull();
    assert.equal((await helper.runs()).length, 2);
    await setup.pull();
    assert.equal((await helper.runs()).length, 2);

    await helper.gives("AWS", second);
    users["AWS"] = second;
    setup.clock.advance(0.2 * hourMs);
    await setup.pull();
    assert.equal((await helper.runs()).length, 3);
    assert.equal(setup.upstream.count({ status: 401 }), 1);
  });

  void it("that fails is reported without its output, and not run again for a while", async (t) => {
    const helper = await makeHelper(t);
    await helper.does("echo canary-leak; echo canary-leak >&2; exit 1");
    const setup = await setUp(t, BASIC, () => [{ helper: helper.program }]);
    for (let round = 0; round < 5; round++) {
      const error = await upstreamErrorOf(setup.pull());
      assert.equal(error.kind, "unauthorized");
      assert.match(error.message, /docker-credential-test ended with 1/);
      assert.doesNotMatch(error.message, /canary/);
    }
    assert.equal((await helper.runs()).length, 1);
    assert.equal(setup.upstream.count(), 0);
    assert.equal(setup.client.isDown(), false);
    await helper.gives("acme", USERS.acme);
    setup.clock.advance(30_000);
    await setup.pull();
  });

  void it("that is missing is named, without a failure of the upstream or the account", async (t) => {
    const program = join(await tempDir(t), "docker-credential-gone");
    const setup = await setUp(t, BASIC, () => [{ helper: program }]);
    for (let round = 0; round < 5; round++) {
      const error = await upstreamErrorOf(setup.pull());
      assert.equal(error.kind, "unauthorized");
      assert.equal(error.isLocal, true);
    }
    const message =
      "the credential helper docker-credential-gone cannot be run (ENOENT)";
    const { observer, client, upstream } = setup;
    assert.deepEqual(observer.credentialFaults[0], [
      "docker-credential-gone",
      message,
    ]);
    assert.deepEqual(observer.faults, []);
    assert.deepEqual(observer.endpoints, []);
    assert.equal(upstream.count(), 0);
    assert.equal(client.isDown(), false);
    const [endpoint] = client.status().endpoints;
    assert.equal(endpoint?.breaker, "closed");
    assert.equal(endpoint?.lastError, undefined);
    assert.equal(client.accounts()[0]?.isRefused, false);
  });

  void it("that is missing does not affect the other accounts", async (t) => {
    const program = join(await tempDir(t), "docker-credential-gone");
    const setup = await setUp(t, BASIC, () => [
      { helper: program },
      { username: "acme", password: new Secret(USERS.acme) },
    ]);
    await setup.pull();
    assert.deepEqual(usersOf(setup), [`acme:${USERS.acme}`]);
  });

  void it("is run once more when the upstream refuses its login", async (t) => {
    const helper = await makeHelper(t);
    await helper.gives("acme", "canary-old");
    const setup = await setUp(t, BASIC, () => [{ helper: helper.program }]);
    const error = await upstreamErrorOf(setup.pull());
    assert.equal(error.kind, "unauthorized");
    // The helper has just run: a newer login is unlikely.
    assert.equal((await helper.runs()).length, 1);
    setup.clock.advance(30_000);
    await helper.gives("acme", USERS.acme);
    await setup.pull();
    assert.equal((await helper.runs()).length, 2);
  });

  void it("does not delay a caller beyond the caller's signal", async (t) => {
    const helper = await makeHelper(t);
    const folder = await tempDir(t);
    const gate = join(folder, "gate");
    await helper.does(`until [ -e '${gate}' ]; do sleep 0.02; done`);
    const setup = await setUp(t, BASIC, () => [{ helper: helper.program }]);
    const leaving = new AbortController();
    const pull = upstreamErrorOf(
      setup.client.headManifest(ALPINE, TAG, leaving.signal),
    );
    leaving.abort();
    assert.equal((await pull).kind, "timeout");
    await writeFile(gate, "");
    await upstreamErrorOf(setup.pull());
    assert.equal((await helper.runs()).length, 1);
  });
});

void describe("a password file", () => {
  for (const auth of [BASIC, BEARER]) {
    void it(`is read again when it changes, by ${auth.scheme}, without a refused request`, async (t) => {
      const passwordFile = join(await tempDir(t), "password");
      await writeSecret(passwordFile, "canary-one\n");
      const users: Record<string, string> = { acme: "canary-one" };
      const setup = await setUp(t, { ...auth, users }, () => [
        { username: "acme", password: new Secret("canary-one"), passwordFile },
      ]);
      await setup.pull();
      users["acme"] = "canary-new";
      setup.upstream.tokens?.revoke();
      await writeSecret(`${passwordFile}.new`, "canary-new\n");
      await rename(`${passwordFile}.new`, passwordFile);
      setup.upstream.forgetRequests();
      await setup.pull();
      assert.equal(setup.upstream.count({ status: 401 }), 0);
      // Readable by every user: rejected, as at the start.
      await writeFile(`${passwordFile}.new`, "canary-open\n", { mode: 0o644 });
      await rename(`${passwordFile}.new`, passwordFile);
      await setup.pull();
      // Empty or missing, as during a replacement: the last valid one stays.
      await writeSecret(passwordFile, "");
      await setup.pull();
      await rename(passwordFile, `${passwordFile}.old`);
      await setup.pull();
      assert.equal(setup.upstream.count({ status: 401 }), 0);
    });
  }
});

void describe("a 401 to a credential that has changed meanwhile", () => {
  for (const auth of [BASIC, BEARER]) {
    void it(`reads the new one and tries it once, by ${auth.scheme}`, async (t) => {
      const passwordFile = join(await tempDir(t), "password");
      await writeSecret(passwordFile, "canary-one");
      const users: Record<string, string> = { acme: "canary-one" };
      const setup = await setUp(t, { ...auth, users }, () => [
        { username: "acme", password: new Secret("canary-one"), passwordFile },
      ]);
      await setup.pull();
      setup.upstream.tokens?.revoke();
      setup.clock.advance(600_000);
      setup.upstream.forgetRequests();
      const kind = auth.scheme === "basic" ? "manifest" : "token";
      const barrier = new Barrier();
      setup.upstream.when(
        { kind },
        { hold: { at: "headers", barrier } },
        { times: 1, beforeAuth: true },
      );
      users["acme"] = "canary-new";
      const pull = setup.pull();
      await barrier.arrived(1);
      await writeSecret(`${passwordFile}.new`, "canary-new");
      await rename(`${passwordFile}.new`, passwordFile);
      barrier.release();
      await pull;
      assert.deepEqual(
        setup.upstream.requests({ kind }).map(({ status }) => status),
        [401, 200],
      );
    });
  }
});

void describe("a pool", () => {
  for (const auth of [BASIC, BEARER]) {
    void it(`continues with the next account after a refusal, by ${auth.scheme}, and avoids the refused one`, async (t) => {
      const setup = await setUp(t, auth, () => pool("canary-wrong"));
      for (let round = 0; round < 5; round++) await setup.pull();
      assert.deepEqual(usersOf(setup), ["other:canary-two"]);
      const wrong = Buffer.from("acme:canary-wrong").toString("base64");
      assert.equal(
        setup.upstream.count({
          where: ({ headers }) => headers["authorization"] === `Basic ${wrong}`,
        }),
        1,
      );
      const [acme, other] = setup.client.accounts();
      assert.deepEqual(
        [acme?.name, acme?.isRefused, other?.name, other?.isRefused],
        ["acme", true, "other", false],
      );
      assert.match(setup.observer.faults[0]?.[1] ?? "", /credential acme/);
      assert.doesNotMatch(JSON.stringify(setup.observer.faults), /canary/);
    });
  }

  void it("continues with the next account in a new repository too, without an anonymous request", async (t) => {
    const users: Record<string, string> = { ...USERS };
    const setup = await setUp(t, { ...BEARER, users }, () => pool(USERS.acme));
    await setup.pull();
    users["acme"] = "canary-new";
    setup.upstream.content.addImage(BUSYBOX, IMAGE, "1");
    setup.upstream.forgetRequests();
    await setup.client.getManifest(BUSYBOX, TAG, SIGNAL);
    assert.deepEqual(
      setup.upstream.requests().map(({ kind, status }) => [kind, status]),
      [
        ["token", 401],
        ["token", 200],
        ["manifest", 200],
      ],
    );
  });

  void it("is refused if every account is; a denied repository is not the fault of a credential", async (t) => {
    const setup = await setUp(t, BEARER, () => pool(USERS.acme));
    setup.upstream.deny(ALPINE);
    const error = await upstreamErrorOf(setup.pull());
    assert.equal(error.kind, "unauthorized");
    assert.deepEqual(
      setup.client.accounts().map(({ isRefused }) => isRefused),
      [false, false],
    );
  });

  void it("names each credential once, and never by its secret", async (t) => {
    const helper = await makeHelper(t);
    await helper.gives("acme", USERS.acme);
    const file = await dockerConfig(t, { auths: {} });
    const { client } = startUpstreamClient(t, ["https://registry.test"], {
      credentials: [
        ...pool("canary-one"),
        { username: "acme", password: new Secret("canary-three") },
        { helper: helper.program },
        { dockerConfigFile: file },
      ],
    });
    assert.deepEqual(
      client.accounts().map(({ name }) => name),
      ["acme", "other", "acme#2", "docker-credential-test", "config.json"],
    );
  });
});
