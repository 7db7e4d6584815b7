import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { request as requestByTls } from "node:https";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AccessConfig } from "../../../src/config/config.ts";
import {
  methodClass,
  type ROUTE_RIGHTS,
} from "../../../src/http/client-auth/route-rights.ts";
import {
  accessConfig,
  basic,
  startTokenIssuer,
  writeHtpasswd,
} from "../../support/access.ts";
import { type AfterTest } from "../../support/after-test.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { startMirror, type TestMirror } from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { upstreamConfig } from "../../support/upstream-harness.ts";

/*
 * Every client sends every method to every route of hosted and mirrored repositories. Nothing is
 * stored: only what the client may do decides between 401, 403 and every other status.
 */

const DIGEST = `sha256:${"1".repeat(64)}`;
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
type Kind = keyof typeof ROUTE_RIGHTS;

const PATHS: Readonly<Record<Kind, (repository: string) => string[]>> = {
  ping: () => ["/v2/"],
  catalog: () => ["/v2/_catalog"],
  manifest: (name) => [
    `/v2/${name}/manifests/v1`,
    `/v2/${name}/manifests/${DIGEST}`,
  ],
  blob: (name) => [`/v2/${name}/blobs/${DIGEST}`],
  tags: (name) => [`/v2/${name}/tags/list`],
  referrers: (name) => [`/v2/${name}/referrers/${DIGEST}`],
  upload: (name) => [
    `/v2/${name}/blobs/uploads/`,
    `/v2/${name}/blobs/uploads/?mount=${DIGEST}&from=open/team/app`,
    `/v2/${name}/blobs/uploads/0123456789abcdef0123456789abcdef`,
  ],
};
const KINDS = Object.keys(PATHS) as Kind[];

const HOSTED = [
  hostedConfig({ hostnames: ["registry.corp", "other.corp:5000"] }),
  hostedConfig({ name: "open", anonymousPush: "anywhere" }),
  hostedConfig({ name: "closed", anonymousPush: "none" }),
];
const MIRRORED = "mirrored.example";
/** Nothing listens there: what is asked upstream fails, and never has one of the statuses of a refusal. */
const UPSTREAMS = [
  { ...upstreamConfig(["http://127.0.0.1:1"]), name: MIRRORED },
];
const REGISTRIES = ["local", "open", "closed", MIRRORED];

type Class = "pull" | "push" | "delete" | "none";

/** What a request needs, written independently of the program. */
function need(kind: Kind, method: string, registry: string): Class {
  if (kind === "ping" || kind === "catalog") return "none";
  if (kind === "upload") return registry === MIRRORED ? "none" : "push";
  if (method === "GET" || method === "HEAD") return "pull";
  if (method === "DELETE") return "delete";
  return registry === MIRRORED ? "none" : "push";
}

type Verdict = "admitted" | "challenge" | "denied";

function verdictOf({ status, headers, body }: RawResponse): Verdict {
  if (status === 401) {
    assert.ok(headers["www-authenticate"]);
    return "challenge";
  }
  assert.equal(headers["www-authenticate"], undefined);
  if (status !== 403) return "admitted";
  if (body.length > 0) assert.match(body.toString(), /"DENIED"/);
  return "denied";
}

interface Client {
  readonly name: string;
  readonly headers: Readonly<Record<string, string>>;
  /** @returns the verdict for a need */
  readonly want: (need: Class, registry: string) => Verdict;
}

async function assertMatrix(
  mirror: TestMirror,
  clients: readonly Client[],
): Promise<number> {
  let cells = 0;
  for (const { name, headers, want } of clients) {
    for (const registry of REGISTRIES) {
      for (const kind of KINDS) {
        for (const path of PATHS[kind](`${registry}/team/app`)) {
          for (const method of METHODS) {
            const { response } = mirror.start(path, { method, headers });
            const label = `${name}: ${method} ${path}`;
            const got = verdictOf(await response);
            const wanted = want(need(kind, method, registry), registry);
            assert.equal(got, wanted, label);
            cells += 1;
          }
        }
      }
    }
  }
  return cells;
}

async function openScene(
  test: AfterTest,
  access?: AccessConfig,
): Promise<TestMirror> {
  return startMirror(test, UPSTREAMS, {
    offline: true,
    ...(access === undefined ? {} : { access }),
    config: { hosted: HOSTED },
  });
}

const PROXIES: readonly Readonly<Record<string, string>>[] = [
  { Via: "1.1 proxy" },
  { Forwarded: "for=192.0.2.1" },
  { "X-Forwarded-For": "127.0.0.1" },
  { "X-Forwarded-Proto": "https" },
  { "X-Real-IP": "192.0.2.1" },
  { "CF-Connecting-IP": "192.0.2.1" },
  { "True-Client-IP": "192.0.2.1" },
  { Host: "rebound.example" },
  { Host: "registry.corp.rebound.example" },
];

function openVerdict(isLoopback: boolean): Client["want"] {
  return (needed, registry) => {
    if (needed === "none" || needed === "pull") return "admitted";
    if (registry === "open") return "admitted";
    if (registry === "closed") return "denied";
    return isLoopback ? "admitted" : "denied";
  };
}

void describe("rights without access", () => {
  void it("are decided by anonymousPush, and by loopback for mirrored repositories", async (test) => {
    const mirror = await openScene(test);
    const local = ["127.0.0.1", "LOCALHOST:5000", "[::1]:1", "registry.corp"];
    const hosts = [...local, "Registry.Corp:443", "other.corp:5000"];
    const cells = await assertMatrix(mirror, [
      { name: "loopback", headers: {}, want: openVerdict(true) },
      ...hosts.slice(0, 3).map((Host) => ({
        name: `loopback by ${Host}`,
        headers: { Host },
        want: openVerdict(true),
      })),
      ...PROXIES.map((headers) => ({
        name: JSON.stringify(headers),
        headers,
        want: openVerdict(false),
      })),
    ]);
    test.diagnostic(`${cells} cells`);
    for (const Host of hosts.slice(3)) {
      // A configured name of a registry; the registry is routed by it.
      const path = "/v2/team/app/blobs/uploads/";
      const headers = { Host };
      const here = await mirror.start(path, { method: "POST", headers })
        .response;
      assert.equal(verdictOf(here), "admitted", Host);
    }
  });

  void it("refuse every write with a foreign Origin, to mirrored registries and by credentials too", async (test) => {
    const access = accessConfig({
      htpasswdFile: await writeHtpasswd(test, { alice: "pw" }),
      anonymous: "none",
    });
    for (const [scene, authorization] of [
      [await openScene(test), {}],
      [await openScene(test, access), { Authorization: basic("alice", "pw") }],
    ] as const) {
      for (const Origin of [
        "https://page.example",
        "null",
        `https://127.0.0.1:${scene.port}`,
      ]) {
        const headers = { ...authorization, Origin };
        for (const registry of REGISTRIES) {
          for (const kind of KINDS) {
            for (const path of PATHS[kind](`${registry}/team/app`)) {
              for (const method of METHODS) {
                const isRead =
                  methodClass(method) === "read" &&
                  (kind !== "upload" || registry === MIRRORED);
                const { response } = scene.start(path, { method, headers });
                assert.equal(
                  verdictOf(await response),
                  isRead ? "admitted" : "denied",
                  `${Origin} ${method} ${path}`,
                );
              }
            }
          }
        }
      }
    }
  });

  void it("are the same over TLS, where an Origin of its own has https", async (test) => {
    const authority = createCertificateAuthority();
    const { cert, key } = authority.issue();
    const folder = await tempDir(test, "tls-");
    const [certificateFile, keyFile] = [
      join(folder, "tls.crt"),
      join(folder, "tls.key"),
    ];
    await writeFile(certificateFile, cert);
    await writeFile(keyFile, key, { mode: 0o600 });
    const { port } = await startMirror(test, UPSTREAMS, {
      tls: { certificateFile, keyFile },
      config: { hosted: HOSTED },
    });
    const statusOf = async (
      registry: string,
      headers: Readonly<Record<string, string>>,
    ): Promise<number> => {
      const sent = requestByTls({
        host: "127.0.0.1",
        port,
        method: "POST",
        path: `/v2/${registry}/team/app/blobs/uploads/`,
        headers,
        ca: authority.cert,
        agent: false,
      }).end();
      const [response] = (await once(sent, "response")) as [IncomingMessage];
      response.resume();
      return response.statusCode ?? 0;
    };
    const origin = `127.0.0.1:${port}`;
    for (const [registry, headers, isAdmitted] of [
      ["local", {}, true],
      ["local", { Via: "1.1 proxy" }, false],
      ["local", { Origin: `https://${origin}` }, false],
      ["open", { Via: "1.1 proxy" }, true],
      ["open", { Origin: `https://${origin}` }, true],
      ["open", { Origin: `http://${origin}` }, false],
      ["open", { Origin: "https://page.example" }, false],
      ["closed", {}, false],
    ] as const) {
      const label = `${registry} ${JSON.stringify(headers)}`;
      const status = await statusOf(registry, headers);
      assert.equal(status, isAdmitted ? 202 : 403, label);
    }
  });

  void it("refuse a client of loopback that has an Origin, even its own", async (test) => {
    const mirror = await openScene(test);
    const own = `http://127.0.0.1:${mirror.port}`;
    const headers = { Host: `127.0.0.1:${mirror.port}`, Origin: own };
    for (const [registry, want] of [
      ["local", "denied"],
      ["open", "admitted"],
    ] as const) {
      const path = `/v2/${registry}/team/app/blobs/uploads/`;
      const { response } = mirror.start(path, { method: "POST", headers });
      assert.equal(verdictOf(await response), want);
    }
  });

  void it("name the key and the way out in a refusal", async (test) => {
    const mirror = await openScene(test);
    const detailOf = async (method: string, path: string): Promise<string> => {
      const headers = { Via: "1.1 proxy" };
      const { body } = await mirror.start(path, { method, headers }).response;
      const { errors } = JSON.parse(body.toString()) as {
        errors: [{ message: string; detail: string }];
      };
      // Engines show the message only.
      assert.equal(errors[0].message, errors[0].detail);
      return errors[0].detail;
    };
    assert.match(
      await detailOf("POST", "/v2/local/a/blobs/uploads/"),
      /^hosted\.local\.anonymousPush: loopback .* set it to anywhere, or configure access/,
    );
    assert.match(
      await detailOf("DELETE", "/v2/closed/a/manifests/v1"),
      /^hosted\.closed\.anonymousPush: none .* set it to loopback or anywhere, or configure access/,
    );
    assert.match(
      await detailOf("DELETE", `/v2/${MIRRORED}/a/manifests/v1`),
      /only clients on this machine .* the action delete/,
    );
  });
});

function userVerdict(rights: {
  readonly hosted: readonly Class[];
  readonly mirrored: readonly Class[];
}): Client["want"] {
  return (needed, registry) => {
    // A read without the right is answered like missing content.
    if (needed === "none" || needed === "pull") return "admitted";
    const held = registry === MIRRORED ? rights.mirrored : rights.hosted;
    return held.includes(needed) ? "admitted" : "denied";
  };
}

/** A user with these rights everywhere. */
function ruled(
  name: string,
  password: string,
  rights: readonly Class[],
): Client {
  return {
    name,
    headers: { Authorization: basic(name, password) },
    want: userVerdict({ hosted: rights, mirrored: rights }),
  };
}

const anonymousVerdict: Client["want"] = (needed) =>
  needed === "push" || needed === "delete" ? "challenge" : "admitted";

void describe("rights with access", () => {
  void it("without rules let users write to hosted registries, and other clients pull", async (test) => {
    const htpasswdFile = await writeHtpasswd(test, { alice: "pw" });
    const right = { Authorization: basic("alice", "pw") };
    const wrong = { Authorization: basic("alice", "wrong") };
    const alice: Client = {
      name: "alice",
      headers: right,
      want: userVerdict({ hosted: ["push", "delete"], mirrored: [] }),
    };
    const open = await openScene(test, accessConfig({ htpasswdFile }));
    await assertMatrix(open, [
      { name: "anonymous", headers: {}, want: anonymousVerdict },
      alice,
      { ...alice, name: "alice, by proxy", headers: { ...right, Via: "1" } },
    ]);
    const upload = "/v2/local/a/blobs/uploads/";
    const ask = (headers: Readonly<Record<string, string>>) =>
      open.start(upload, { method: "POST", headers }).response;
    const { status, headers } = await ask(wrong);
    assert.deepEqual(
      [status, headers["www-authenticate"]],
      [401, 'Basic realm="entrepot"'],
    );
    const closed = await openScene(
      test,
      accessConfig({ htpasswdFile, anonymous: "none" }),
    );
    await assertMatrix(closed, [
      { name: "anonymous", headers: {}, want: () => "challenge" },
      alice,
    ]);
  });

  void it("with rules let users do what their rules say, and nothing else", async (test) => {
    const htpasswdFile = await writeHtpasswd(test, {
      pusher: "p",
      deleter: "d",
      reader: "r",
    });
    const everywhere = ["**"];
    const access = accessConfig({
      htpasswdFile,
      rules: [
        { who: ["*"], repositories: everywhere, actions: ["pull"] },
        { who: ["pusher"], repositories: everywhere, actions: ["push"] },
        { who: ["deleter"], repositories: everywhere, actions: ["delete"] },
      ],
    });
    await assertMatrix(await openScene(test, access), [
      { name: "anonymous", headers: {}, want: anonymousVerdict },
      ruled("pusher", "p", ["push"]),
      ruled("deleter", "d", ["delete"]),
      ruled("reader", "r", []),
    ]);
  });

  void it("of a token are what its claims and the rules say, and the challenge has the scope", async (test) => {
    const issuer = await startTokenIssuer(test, () => Date.UTC(2026, 0, 1));
    const mirror = await openScene(
      test,
      accessConfig({ tokenServer: issuer.config, anonymous: "pull" }),
    );
    const ask = async (
      method: string,
      path: string,
      actions?: readonly string[],
    ): Promise<readonly [Verdict, string | undefined]> => {
      const name = "local/team/app";
      const claims = { exp: Date.UTC(2027, 0, 1) / 1000 };
      const token =
        actions === undefined
          ? undefined
          : await issuer.sign([{ type: "repository", name, actions }], claims);
      const headers =
        token === undefined ? {} : { Authorization: `Bearer ${token}` };
      const response = await mirror.start(path, { method, headers }).response;
      const challenge = response.headers["www-authenticate"];
      return [
        verdictOf(response),
        /scope="([^"]*)"/.exec(challenge ?? "")?.[1],
      ];
    };
    const upload = "/v2/local/team/app/blobs/uploads/";
    const manifest = "/v2/local/team/app/manifests/v1";
    const push = "repository:local/team/app:pull,push";
    const remove = "repository:local/team/app:delete";
    for (const [method, path, actions, want, scope] of [
      ["POST", upload, undefined, "challenge", push],
      ["POST", upload, ["pull"], "challenge", push],
      ["POST", upload, ["pull", "push"], "admitted", undefined],
      ["GET", `${upload}0123456789abcdef`, ["pull"], "challenge", push],
      ["PUT", manifest, ["delete"], "challenge", push],
      ["PUT", manifest, ["*"], "admitted", undefined],
      ["DELETE", manifest, ["pull", "push"], "challenge", remove],
      ["DELETE", manifest, ["delete"], "admitted", undefined],
      ["GET", manifest, ["push"], "admitted", undefined],
    ] as const) {
      assert.deepEqual(
        await ask(method, path, actions),
        [want, scope],
        `${method} ${path} ${String(actions)}`,
      );
    }
  });
});
