import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { Agent, get, type RequestOptions } from "node:https";
import type { Socket } from "node:net";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import type {
  AccessConfig,
  AccessRule,
  ServerTlsConfig,
} from "../../../src/config/config.ts";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import { releaseAfter } from "../../support/after-test.ts";
import {
  createCertificateAuthority,
  type IssuedCertificate,
} from "../../support/certificate-authority.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const SERVER = createCertificateAuthority();
const CLIENTS = createCertificateAuthority("clients");
const STRANGERS = createCertificateAuthority("strangers");
const GOOD = CLIENTS.issue();

async function tlsConfig(
  test: TestContext,
  clientCa?: string,
): Promise<ServerTlsConfig> {
  const folder = await tempDir(test, "tls-");
  const { cert, key } = SERVER.issue();
  const place = async (name: string, text: string): Promise<string> => {
    const file = join(folder, name);
    await writeFile(file, text, { mode: 0o600 });
    return file;
  };
  return {
    certificateFile: await place("tls.crt", cert),
    keyFile: await place("tls.key", key),
    clientCaFile:
      clientCa === undefined ? undefined : await place("ca.crt", clientCa),
  };
}

/** @returns the status, or `refused` if the connection fails */
function ask(
  mirror: TestMirror,
  certificate?: IssuedCertificate,
  headers: Readonly<Record<string, string>> = {},
  path = "/v2/",
): Promise<number | "refused"> {
  const options = { path, ca: SERVER.cert, headers, ...certificate };
  return send(mirror, { agent: false, ...options });
}

function askBy(mirror: TestMirror, agent: Agent): Promise<number | "refused"> {
  return send(mirror, { agent, path: "/v2/" });
}

function send(
  { port }: TestMirror,
  options: RequestOptions,
): Promise<number | "refused"> {
  const { promise, resolve } = Promise.withResolvers<number | "refused">();
  get({ host: "127.0.0.1", port, ...options }, (response) => {
    response.resume();
    resolve(response.statusCode ?? 0);
  }).on("error", () => resolve("refused"));
  return promise;
}

const mayPull = (who: string, repository: string): AccessRule => ({
  who: [who],
  repositories: [`**/${repository}`],
  actions: ["pull"],
});

const ended = () => CLIENTS.issue({ notAfter: new Date(Date.now() - 1000) });

void describe("a client certificate", () => {
  const cases: readonly {
    readonly name: string;
    readonly access: (users: string) => AccessConfig | undefined;
    readonly good: number;
    readonly none: number | "refused";
    readonly password: number | "refused";
  }[] = [
    {
      name: "is required from every client if access is not configured",
      access: () => undefined,
      good: 200,
      none: "refused",
      password: "refused",
    },
    {
      name: "is an alternative to passwords",
      access: (htpasswdFile) =>
        accessConfig({ htpasswdFile, anonymous: "none" }),
      good: 200,
      none: 401,
      password: 200,
    },
    {
      name: "is an alternative to anonymousNetworks for other addresses",
      access: (htpasswdFile) =>
        accessConfig({ htpasswdFile, anonymousNetworks: ["10.0.0.0/8"] }),
      good: 200,
      none: 401,
      password: 200,
    },
    {
      name: "is optional if anonymous pulls are allowed",
      access: () => accessConfig(),
      good: 200,
      none: 200,
      password: 200,
    },
  ];
  for (const { name, access, good, none, password } of cases) {
    void it(`${name}, and an invalid one is refused`, async (test) => {
      const users = await writeHtpasswd(test, { alice: "pw" });
      const written = access(users);
      const mirror = await startMirror(test, [], {
        tls: await tlsConfig(test, CLIENTS.cert),
        ...(written === undefined ? {} : { access: written }),
      });
      const headers = { Authorization: basic("alice", "pw") };
      assert.deepEqual(
        [
          await ask(mirror, GOOD),
          await ask(mirror),
          await ask(mirror, undefined, headers),
          await ask(mirror, STRANGERS.issue()),
          await ask(mirror, ended()),
          await ask(mirror, STRANGERS.issue(), headers),
        ],
        [good, none, password, "refused", "refused", "refused"],
      );
    });
  }

  void it("has the rights of `*` in rules, and a password adds those of its user", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", buildImage({ seed: "mine" }), "v");
    upstream.content.addImage("library/all", buildImage({ seed: "all" }), "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      tls: await tlsConfig(test, CLIENTS.cert),
      access: accessConfig({
        htpasswdFile: await writeHtpasswd(test, { alice: "pw" }),
        anonymous: "none",
        rules: [mayPull("*", "all"), mayPull("alice", "app")],
      }),
    });
    const right = { Authorization: basic("alice", "pw") };
    const wrong = { Authorization: basic("alice", "wrong") };
    const app = "/v2/library/app/manifests/v";
    const all = "/v2/library/all/manifests/v";
    assert.equal(await ask(mirror, GOOD, {}, all), 200);
    assert.equal(await ask(mirror, GOOD, {}, app), 404);
    assert.equal(await ask(mirror, GOOD, right, app), 200);
    // Wrong credentials are ignored if the client is admitted without them.
    assert.equal(await ask(mirror, GOOD, wrong, all), 200);
    assert.equal(await ask(mirror, undefined, wrong, all), 401);
  });
});

void describe("a reload of tls", () => {
  void it("applies new files, and starts or stops requiring client certificates", async (test) => {
    const plain = await tlsConfig(test);
    const asking = await tlsConfig(test, CLIENTS.cert);
    const mirror = await startMirror(test, [], { tls: plain });
    assert.equal(await ask(mirror), 200);
    assert.deepEqual(await mirror.reload({ tls: asking }), ["tls"]);
    assert.deepEqual(
      [await ask(mirror), await ask(mirror, GOOD)],
      ["refused", 200],
    );
    const access = accessConfig({ anonymousNetworks: ["127.0.0.0/8"] });
    await mirror.reload({ access });
    assert.equal(await ask(mirror), 200);
    assert.equal(await ask(mirror, STRANGERS.issue()), "refused");
    await mirror.reload({ tls: plain });
    assert.equal(await ask(mirror, STRANGERS.issue()), 200);
  });

  void it("closes connections without a certificate once certificates are required", async (test) => {
    const tls = await tlsConfig(test, CLIENTS.cert);
    const access = accessConfig({ anonymousNetworks: ["127.0.0.0/8"] });
    const mirror = await startMirror(test, [], { tls, access });
    const agents = [{}, GOOD].map(
      (one) => new Agent({ keepAlive: true, ca: SERVER.cert, ...one }),
    );
    releaseAfter(test, () => agents.forEach((agent) => agent.destroy()));
    const [stranger, known] = agents;
    assert.ok(stranger && known);
    const closed = Promise.withResolvers<void>();
    stranger.on("free", (socket: Socket) => {
      socket.once("close", () => closed.resolve());
    });
    for (const agent of agents) {
      assert.equal(await askBy(mirror, agent), 200);
    }
    await mirror.reload({}, true);
    await closed.promise;
    assert.equal(await askBy(mirror, stranger), "refused");
    assert.equal(await askBy(mirror, known), 200);
  });

  void it("changes nothing if the new files are invalid", async (test) => {
    const tls = await tlsConfig(test, CLIENTS.cert);
    const mirror = await startMirror(test, [], { tls });
    const spoilt = { ...tls, keyFile: tls.certificateFile };
    await assert.rejects(
      mirror.reload({ tls: spoilt, access: accessConfig() }),
      /tls\.keyFile: got .* \(an invalid private key\); expected /,
    );
    assert.deepEqual(
      [await ask(mirror), await ask(mirror, GOOD)],
      ["refused", 200],
    );
  });
});
