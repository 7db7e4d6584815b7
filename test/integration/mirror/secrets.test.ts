import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Secret, type UpstreamCredential } from "../../../src/config/config.ts";
import { makeHelper } from "../../support/credential-helper.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { UpstreamAuth } from "../../support/scripted-tokens.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { type AfterTest, tempDir } from "../../support/temp-dir.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "secrets" });
const TTL_MS = 600_000;
const USER = "acme";
/** Credentials of a client; the mirror requires none. */
const CLIENT_SECRET = "canary-client";
const CLIENT_HEADERS = {
  Authorization: `Basic ${Buffer.from(`hub:${CLIENT_SECRET}`).toString("base64")}`,
  Cookie: "session=canary-cookie",
};

interface Form {
  readonly name: string;
  readonly secret: string;
  readonly auth: UpstreamAuth;
  readonly credential: (
    test: AfterTest,
    host: string,
  ) => Promise<UpstreamCredential>;
}

function bearer(secret: string): UpstreamAuth {
  return { scheme: "bearer", users: { [USER]: secret }, anonymous: false };
}

const FORMS: readonly Form[] = [
  ...(["basic", "bearer"] as const).map((scheme) => ({
    name: `a password by ${scheme}`,
    secret: `canary-password-${scheme}`,
    auth:
      scheme === "basic"
        ? { scheme, users: { [USER]: "canary-password-basic" } }
        : bearer("canary-password-bearer"),
    credential: () =>
      Promise.resolve({
        username: USER,
        password: new Secret(`canary-password-${scheme}`),
      }),
  })),
  {
    name: "a password file",
    secret: "canary-file",
    auth: bearer("canary-file"),
    async credential(test) {
      const passwordFile = join(await tempDir(test), "password");
      await writeFile(passwordFile, "canary-file\n", { mode: 0o600 });
      const password = new Secret("canary-file");
      return { username: USER, password, passwordFile };
    },
  },
  {
    name: "a Docker config.json",
    secret: "canary-docker",
    auth: bearer("canary-docker"),
    async credential(test, host) {
      const auth = Buffer.from(`${USER}:canary-docker`).toString("base64");
      return dockerConfig(test, { auths: { [host]: { auth } } });
    },
  },
  {
    name: "an identity token",
    secret: "canary-identity",
    auth: {
      scheme: "bearer",
      anonymous: false,
      refreshTokens: { "canary-identity": USER },
    },
    credential: (test, host) =>
      dockerConfig(test, {
        auths: { [host]: { identitytoken: "canary-identity" } },
      }),
  },
  {
    name: "a credential helper",
    secret: "canary-helper",
    auth: bearer("canary-helper"),
    async credential(test) {
      const helper = await makeHelper(test);
      await helper.gives(USER, "canary-helper");
      return { helper: helper.program };
    },
  },
];

async function dockerConfig(
  test: AfterTest,
  content: unknown,
): Promise<UpstreamCredential> {
  const dockerConfigFile = join(await tempDir(test), "config.json");
  await writeFile(dockerConfigFile, JSON.stringify(content), { mode: 0o600 });
  return { dockerConfigFile };
}

/** Responses of an upstream that has received a credential. */
const FAULTS: readonly Misbehaviour[] = [
  { status: 401 },
  { status: 403 },
  { status: 429 },
  { status: 500 },
  { status: 400, body: "canary-body" },
  {
    body: "<html>canary-body</html>",
    headers: { "content-type": "text/html" },
  },
  { raw: "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\ncanary-body" },
  { cut: { atByte: 0, by: "rst" } },
  {
    status: 307,
    headers: {
      location: "file:///etc/passwd?X-Amz-Signature=canary-signature",
    },
  },
  {
    status: 307,
    headers: {
      location: "http://127.0.0.1:1/x?X-Amz-Signature=canary-signature",
    },
  },
];

/** Every output that could contain a secret. */
class Trail {
  readonly #texts: Buffer[] = [];

  add(text: string | Buffer): void {
    this.#texts.push(Buffer.from(text));
  }

  async addFolder(folder: string): Promise<void> {
    const entries = await readdir(folder, {
      recursive: true,
      withFileTypes: true,
    });
    for (const entry of entries) {
      if (entry.isFile()) {
        this.add(await readFile(join(entry.parentPath, entry.name)));
      }
    }
  }

  assertWithout(secrets: Iterable<string>): void {
    for (const secret of secrets) {
      const base64 = Buffer.from(secret).toString("base64").replace(/=+$/, "");
      for (const form of [secret, base64, encodeURIComponent(secret)]) {
        for (const text of this.#texts) {
          const at = text.indexOf(form);
          assert.equal(
            at,
            -1,
            `${form} in ${text.subarray(Math.max(0, at - 200), at + 100).toString()}`,
          );
        }
      }
    }
  }
}

async function askAll(mirror: TestMirror, trail: Trail): Promise<number[]> {
  const statuses: number[] = [];
  for (const path of [
    "/v2/a/manifests/v",
    `/v2/a/manifests/${IMAGE.manifest.digest}`,
    `/v2/a/blobs/${IMAGE.config.digest}`,
    "/v2/a/manifests/absent",
    "/v2/a/tags/list",
    `/v2/a/referrers/${IMAGE.manifest.digest}`,
  ]) {
    const got = await mirror.get(path, CLIENT_HEADERS);
    statuses.push(got.status);
    trail.add(JSON.stringify(got.headers));
    trail.add(got.body);
  }
  await mirror.settled();
  return statuses;
}

void describe("a secret", () => {
  for (const { name, secret, auth, credential } of FORMS) {
    void it(`of ${name} is in no log at trace level, response, metric or file`, async (test) => {
      const upstream = await ScriptedUpstream.start(test, {
        auth,
        redirectBlobs: {},
      });
      upstream.content.addImage("a", IMAGE, "v");
      const credentials = [await credential(test, upstream.host)];
      const trail = new Trail();
      const open = (): Promise<TestMirror> =>
        startMirror(test, [upstreamOf(upstream, { credentials })], {
          logLevel: "trace",
        });
      const close = async (mirror: TestMirror): Promise<void> => {
        trail.add((await mirror.operator("/metrics")).body);
        const status = await mirror.operator("/api/v1/upstreams");
        assert.equal(status.status, 200);
        trail.add(status.body);
        await mirror.close();
        trail.add(JSON.stringify(mirror.log));
        await trail.addFolder(mirror.root);
      };

      const warm = await open();
      assert.deepEqual(
        (await askAll(warm, trail)).slice(0, 3),
        [200, 200, 200],
      );
      for (const fault of FAULTS) {
        for (const kind of ["token", "manifest", "blob"] as const) {
          upstream.when({ kind }, fault, { beforeAuth: true });
          warm.clock.advance(TTL_MS);
          upstream.tokens?.revoke();
          await askAll(warm, trail);
          upstream.clearRules();
        }
      }
      await close(warm);
      for (const fault of FAULTS) {
        // An interrupted blob is resumed for 15 s.
        if (fault.cut !== undefined) continue;
        const cold = await open();
        upstream.when({}, fault, { beforeAuth: true });
        await askAll(cold, trail);
        upstream.clearRules();
        await close(cold);
      }

      const seen = upstream
        .requests()
        .flatMap(({ headers, body, target }) => [
          Buffer.from(
            (headers["authorization"] ?? "").replace(/^Basic /, ""),
            "base64",
          ).toString(),
          body.toString(),
          target,
        ]);
      assert.ok(seen.some((text) => text.includes(secret)));
      assert.ok(!seen.some((text) => text.includes(CLIENT_SECRET)));
      const tokens = upstream
        .requests()
        .flatMap(
          ({ headers }) =>
            /^Bearer (.+)$/.exec(headers["authorization"] ?? "")?.[1] ?? [],
        );
      const signatures = upstream
        .requests({ listener: "cdn" })
        .map(({ target }) => target.slice(target.indexOf("?") + 1));
      assert.ok(signatures.length > 0);
      trail.assertWithout(
        new Set([
          "canary",
          `${USER}:${secret}`,
          `hub:${CLIENT_SECRET}`,
          ...tokens,
          ...signatures,
        ]),
      );
    });
  }
});
