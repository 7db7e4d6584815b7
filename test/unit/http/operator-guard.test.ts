import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FastifyInstance } from "fastify";
import { Secret } from "../../../src/config/config.ts";
import {
  createOperatorApp,
  type OperatorSources,
} from "../../../src/http/operator-routes.ts";
import { type AuditEvent, NO_AUDIT } from "../../../src/telemetry/audit.ts";
import { createUpstreamRoutes } from "../../../src/mirror/upstream-routes.ts";
import { createMetrics } from "../../../src/telemetry/metrics.ts";

import { upstreamConfig } from "../../support/upstream-harness.ts";

const TOKEN = "0123456789abcdef";
const OPEN = ["/healthz", "/readyz", "/metrics"];

function makeApp(
  token: string | undefined,
  audited: AuditEvent[] = [],
): FastifyInstance {
  const app = createOperatorApp(
    createMetrics("0"),
    {
      refreshMetrics: () => Promise.resolve(),
      readiness: () => Promise.resolve({ isReady: true, detail: {} }),
      status: () => Promise.resolve({}),
      upstreams: () => [],
      routes: createUpstreamRoutes([
        upstreamConfig(["http://127.0.0.1:9"], { name: "quay.io" }),
      ]),
      images: {
        remove: () => Promise.resolve(5),
        setPinned: () => Promise.resolve(true),
      },
      // Nothing behind the guard is ever reached but what is written below.
    } as unknown as OperatorSources,
    {
      token: () => (token === undefined ? undefined : new Secret(token)),
      listenHost: "ops.corp",
      audit: { ...NO_AUDIT, record: (event) => void audited.push(event) },
    },
  );
  // Stands for every route of the API: they all are behind the same guard.
  app.route({
    method: ["GET", "POST"],
    url: "/api/v1/guarded",
    handler: () => ({ ok: true }),
  });
  return app;
}

interface Ask {
  readonly url?: string;
  readonly from?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly method?: "GET" | "POST";
}

async function ask(
  app: FastifyInstance,
  { url = "/api/v1/guarded", from, headers, method = "GET" }: Ask,
): Promise<{ status: number; code: string | undefined }> {
  const response = await app.inject({
    method,
    url,
    remoteAddress: from ?? "127.0.0.1",
    headers: { host: "127.0.0.1:5001", ...headers },
  });
  const body: { errors?: { code: string }[] } =
    response.headers["content-type"]?.toString().includes("json") === true
      ? response.json()
      : {};
  return { status: response.statusCode, code: body.errors?.[0]?.code };
}

void describe("the operator API without a token", () => {
  for (const [from, status] of [
    ["127.0.0.1", 200],
    ["127.8.9.10", 200],
    ["::1", 200],
    ["::ffff:127.0.0.1", 200],
    ["10.0.0.1", 403],
    ["::ffff:10.0.0.1", 403],
    ["fe80::1", 403],
  ] as const) {
    void it(`answers ${from} ${status}`, async () => {
      const answer = await ask(makeApp(undefined), { from });
      assert.equal(answer.status, status);
      assert.equal(answer.code, status === 403 ? "DENIED" : undefined);
    });
  }

  void it("answers 403 whatever the path, and records it", async () => {
    const audited: AuditEvent[] = [];
    const app = makeApp(undefined, audited);
    const from = "10.0.0.1";
    for (const url of [
      "/api/v1/status",
      "/api/v1/nothing",
      "/api/v1/../../api/v1/status",
      "//api/v1/status",
      "/",
      "/healthz/../api/v1/status",
      "/%61pi/v1/status",
    ]) {
      assert.equal((await ask(app, { url, from })).status, 403, url);
    }
    assert.equal(audited.length, 7);
    assert.ok(audited.every(({ event }) => event === "denied"));
  });

  void it("does not take what a proxy on this machine passes on for this machine's", async () => {
    const headers = { "x-forwarded-for": "10.0.0.1" };
    assert.equal((await ask(makeApp(undefined), { headers })).status, 403);
  });

  void it("is not moved by a method in a header", async () => {
    const headers = { "x-http-method-override": "GET" };
    const ask1: Ask = { from: "10.0.0.1", method: "POST", headers };
    assert.equal((await ask(makeApp(undefined), ask1)).status, 403);
  });
});

void describe("the operator API with a token", () => {
  for (const [authorization, status] of [
    [`Bearer ${TOKEN}`, 200],
    [`bearer ${TOKEN}`, 200],
    [`Bearer ${TOKEN}x`, 401],
    [`Bearer ${TOKEN.slice(0, -1)}`, 401],
    ["Bearer", 401],
    [`Basic ${TOKEN}`, 401],
    [undefined, 401],
  ] as const) {
    void it(`answers ${authorization ?? "nothing"} ${status}, from anywhere`, async () => {
      const app = makeApp(TOKEN);
      for (const from of ["127.0.0.1", "10.0.0.1"]) {
        const headers = authorization === undefined ? {} : { authorization };
        assert.equal((await ask(app, { from, headers })).status, status, from);
      }
    });
  }
});

void describe("health and metrics", () => {
  void it("are open to everybody", async () => {
    for (const token of [undefined, TOKEN]) {
      for (const url of OPEN) {
        const headers = { host: "mirror.monitoring.svc:5001" };
        const { status } = await ask(makeApp(token), {
          url,
          from: "10.0.0.1",
          headers,
        });
        assert.equal(status, 200, url);
      }
    }
  });
});

void describe("a browser", () => {
  void it("is refused where a page's script asks, with or without a token", async () => {
    const headers = {
      origin: "https://evil.example",
      authorization: `Bearer ${TOKEN}`,
    };
    for (const token of [undefined, TOKEN]) {
      for (const url of ["/api/v1/guarded", ...OPEN]) {
        assert.equal((await ask(makeApp(token), { url, headers })).status, 403);
      }
    }
  });

  for (const [host, status] of [
    ["127.0.0.1:5001", 200],
    ["[::1]:5001", 200],
    ["localhost:5001", 200],
    ["LOCALHOST", 200],
    ["mirror.localhost:5001", 200],
    ["ops.corp:5001", 200],
    ["rebound.evil.example:5001", 403],
    ["localhost.evil.example", 403],
    ["127.0.0.1.evil.example:5001", 403],
  ] as const) {
    void it(`that calls this machine "${host}" is answered ${status}`, async () => {
      for (const url of ["/api/v1/guarded", "/metrics"]) {
        const answer = await ask(makeApp(undefined), {
          url,
          headers: { host },
        });
        assert.equal(answer.status, status, url);
      }
    });
  }
});

void describe("what the operator changes", () => {
  void it("is recorded: purges and pins, by whom and of what", async () => {
    const audited: AuditEvent[] = [];
    const app = makeApp(undefined, audited);
    const ref = "quay.io/team/app:1";
    for (const [method, url] of [
      ["DELETE", `/api/v1/images/${ref}`],
      ["GET", "/api/v1/guarded"],
      ["DELETE", "/api/v1/images/none"],
    ] as const) {
      await app.inject({
        method,
        url,
        remoteAddress: "127.0.0.1",
        headers: { host: "127.0.0.1" },
      });
    }
    assert.deepEqual(audited, [
      { event: "purged", client: "127.0.0.1", reference: ref },
    ]);
  });
});
