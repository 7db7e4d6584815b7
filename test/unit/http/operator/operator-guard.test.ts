import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FastifyInstance } from "fastify";
import { Secret } from "../../../../src/config/config.ts";
import {
  createOperatorApp,
  type OperatorSources,
} from "../../../../src/http/operator/operator-routes.ts";
import { type AuditEvent, NO_AUDIT } from "../../../../src/telemetry/audit.ts";
import { systemClock } from "../../../../src/telemetry/clock.ts";
import { createMetrics } from "../../../../src/telemetry/metrics.ts";
import { registeredRoutes } from "../../../support/registered-routes.ts";

const TOKEN = "0123456789abcdef";
const OPEN = ["/healthz", "/readyz", "/metrics"];

const notAsked = (): never => assert.fail("called although the guard refused");

/** The parts of the program that the API calls: none of them in these tests. */
const UNUSED: Omit<OperatorSources, "refreshMetrics" | "readiness"> = {
  images: { list: notAsked, resolve: notAsked, get: notAsked },
  hosted: { isHosted: notAsked },
  orders: {
    images: { setPinned: notAsked, remove: notAsked, evict: notAsked },
    hosted: { isHosted: notAsked, remove: notAsked, untag: notAsked },
    tagging: {
      index: {
        getLinkedBlob: notAsked,
        listBlobRepositories: notAsked,
        mountHostedBlob: notAsked,
        deleteHostedManifest: notAsked,
        listUntaggedManifests: notAsked,
        getTag: notAsked,
      },
      blobs: { read: notAsked },
      putManifest: notAsked,
      events: notAsked,
      findHosted: notAsked,
      sharesBlobs: notAsked,
      reservedBytes: notAsked,
      clock: systemClock,
    },
    garbage: { collect: notAsked },
    audit: NO_AUDIT,
  },
  planWarm: notAsked,
  jobs: {
    start: notAsked,
    track: notAsked,
    get: notAsked,
    list: notAsked,
    cancel: notAsked,
    subscribe: notAsked,
    changesSince: notAsked,
  },
  audit: NO_AUDIT,
  wishes: { list: notAsked },
  refresh: notAsked,
  scrub: notAsked,
  imports: { run: notAsked },
  exports: { start: notAsked },
  status: notAsked,
  upstreams: notAsked,
};

function makeApp(
  token: string | undefined,
  audited: AuditEvent[] = [],
): FastifyInstance {
  const app = createOperatorApp(
    createMetrics("0"),
    {
      refreshMetrics: () => Promise.resolve(),
      readiness: () => Promise.resolve({ isReady: true, detail: {} }),
      ...UNUSED,
    },
    {
      token: () => (token === undefined ? undefined : new Secret(token)),
      listenHost: "ops.corp",
      audit: { ...NO_AUDIT, record: (event) => void audited.push(event) },
    },
  );
  // Represents every route of the API: the guard is the same.
  app.route({
    method: ["GET", "POST"],
    url: "/api/v1/probe",
    handler: () => ({ ok: true }),
  });
  return app;
}

interface Ask {
  readonly url?: string;
  readonly from?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly method?: "GET" | "POST" | "PUT" | "DELETE" | "HEAD";
}

async function ask(
  app: FastifyInstance,
  { url = "/api/v1/probe", from, headers, method = "GET" }: Ask,
): Promise<{ status: number; code: string | undefined }> {
  const response = await app.inject({
    method,
    url,
    remoteAddress: from ?? "127.0.0.1",
    headers: { host: "127.0.0.1:5001", ...headers },
  });
  const body: { errors?: { code: string }[] } =
    response.body !== "" &&
    response.headers["content-type"]?.toString().includes("json") === true
      ? response.json()
      : {};
  return { status: response.statusCode, code: body.errors?.[0]?.code };
}

/** Returns a path that matches the route. */
function pathOf(url: string): string {
  return url.replace("*", "docker.io/library/a:1");
}

void describe("every registered route", () => {
  /** Clients without a right, and the status that they get; no part of the program is called. */
  const strangers: readonly (readonly [
    name: string,
    token: string | undefined,
    ask: Ask,
    status: number,
  ])[] = [
    ["from elsewhere without a token", undefined, { from: "10.0.0.1" }, 403],
    ["from elsewhere", TOKEN, { from: "10.0.0.1" }, 401],
    ["from this machine with a token set", TOKEN, {}, 401],
    [
      "with a wrong token",
      TOKEN,
      { headers: { authorization: `Bearer ${TOKEN}x` } },
      401,
    ],
    [
      "through a proxy of this machine",
      undefined,
      { headers: { forwarded: "for=10.0.0.1" } },
      403,
    ],
    [
      "by a rebound name",
      undefined,
      { headers: { host: "evil.example" } },
      403,
    ],
    [
      "from a page",
      undefined,
      { headers: { origin: "http://127.0.0.1:5002" } },
      403,
    ],
  ];
  for (const [name, token, how, status] of strangers) {
    void it(`answers ${status} ${name}, unless the route is open`, async () => {
      const app = makeApp(token);
      await app.ready();
      const routes = registeredRoutes(app);
      assert.ok(routes.length > 12, `${routes.length}`);
      const open = new Set<string>();
      for (const { method, url } of routes) {
        const request = { ...how, url: pathOf(url), method } as Ask;
        const answer = await ask(app, request);
        if (answer.status === 200) open.add(url);
        else assert.equal(answer.status, status, `${method} ${url}`);
      }
      // These names are refused for every route.
      const isBarred = /rebound|page/.test(name);
      assert.deepEqual([...open], isBarred ? [] : OPEN);
    });
  }
});

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

  void it("answers 403 on every path, and records it", async () => {
    const audited: AuditEvent[] = [];
    const app = makeApp(undefined, audited);
    const from = "10.0.0.1";
    for (const url of [
      "/api/v1/probe",
      "/api/v1/nothing",
      "/api/v1/../../api/v1/probe",
      "//api/v1/probe",
      "/",
      "/healthz/../api/v1/probe",
      "/%61pi/v1/status",
    ]) {
      assert.equal((await ask(app, { url, from })).status, 403, url);
    }
    assert.equal(audited.length, 7);
    assert.ok(audited.every(({ event }) => event === "denied"));
  });

  for (const name of [
    "Via",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Anything",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
  ]) {
    void it(`does not count a request with ${name} as local, even if the header names this machine`, async () => {
      for (const value of ["10.0.0.1", "127.0.0.1", ""]) {
        const headers = { [name]: value };
        const app = makeApp(undefined);
        assert.equal((await ask(app, { headers })).status, 403, value);
        assert.equal(
          (await ask(app, { headers, url: "/healthz" })).status,
          200,
        );
      }
    });
  }

  void it("does not count a request with too many headers as local", async () => {
    for (const [length, status] of [
      [90, 200],
      [101, 403],
    ] as const) {
      const names = Array.from({ length }, (_, i) => [`x-${i}`, "1"]);
      const headers: Record<string, string> = Object.fromEntries(names);
      assert.equal((await ask(makeApp(undefined), { headers })).status, status);
    }
  });

  void it("ignores X-HTTP-Method-Override", async () => {
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
  void it("are open to every client", async () => {
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
  void it("is refused to a script of a web page, with or without a token", async () => {
    const headers = {
      origin: "https://evil.example",
      authorization: `Bearer ${TOKEN}`,
    };
    for (const token of [undefined, TOKEN]) {
      for (const url of ["/api/v1/probe", ...OPEN]) {
        assert.equal((await ask(makeApp(token), { url, headers })).status, 403);
      }
    }
  });

  for (const [site, mode, status] of [
    ["cross-site", "no-cors", 403],
    ["same-site", "no-cors", 403],
    ["cross-site", "navigate", 200],
    ["same-origin", "cors", 200],
    ["none", "navigate", 200],
  ] as const) {
    void it(`that sends Sec-Fetch-Site ${site} and Sec-Fetch-Mode ${mode} without Origin is answered ${status}`, async () => {
      const headers = { "sec-fetch-site": site, "sec-fetch-mode": mode };
      for (const url of ["/api/v1/probe", ...OPEN]) {
        const answer = await ask(makeApp(undefined), { url, headers });
        assert.equal(answer.status, status, url);
      }
    });
  }

  void it("that shows the listener's own page is answered, with the name in any case", async () => {
    for (const host of ["127.0.0.1:5001", "localhost:5001", "ops.corp"]) {
      const headers = { host, origin: `http://${host.toUpperCase()}` };
      assert.equal((await ask(makeApp(undefined), { headers })).status, 200);
      const other = { host, origin: `https://${host}` };
      const answer = await ask(makeApp(undefined), { headers: other });
      assert.equal(answer.status, 403, "another scheme");
    }
    const rebound = { host: "evil.example", origin: "http://evil.example" };
    const answer = await ask(makeApp(undefined), { headers: rebound });
    assert.equal(answer.status, 403);
  });

  for (const [host, api, open] of [
    ["127.0.0.1:5001", 200, 200],
    ["127.9.9.9", 200, 200],
    ["[::1]:5001", 200, 200],
    ["localhost:5001", 200, 200],
    ["LOCALHOST", 200, 200],
    ["ops.corp:5001", 200, 200],
    // Names and addresses of this machine that a page of another site can use as well.
    ["mirror.localhost:5001", 403, 200],
    ["10.0.0.1:5001", 403, 200],
    ["0.0.0.0:5001", 403, 200],
    ["rebound.evil.example:5001", 403, 403],
    ["localhost.evil.example", 403, 403],
    ["127.0.0.1.evil.example:5001", 403, 403],
  ] as const) {
    void it(`with Host "${host}" is answered ${api}, and ${open} for metrics`, async () => {
      for (const [url, status] of [
        ["/api/v1/probe", api],
        ["/metrics", open],
      ] as const) {
        const answer = await ask(makeApp(undefined), {
          url,
          headers: { host },
        });
        assert.equal(answer.status, status, url);
      }
    });
  }
});
