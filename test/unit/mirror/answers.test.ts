import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  judgeUpstreamFailure,
  offlineRefusal,
  policyRefusal,
  type Refusal,
  type StaleOffer,
  staleStatus,
  toRefusal,
  type Wanted,
} from "../../../src/mirror/answers.ts";
import { RegistryError } from "../../../src/oci/errors.ts";
import {
  UpstreamError,
  type UpstreamErrorKind,
  type UpstreamErrorOptions,
} from "../../../src/wire/errors.ts";

const CANARY = "canary: <b>upstream's own words</b>";

interface Row {
  readonly kind: UpstreamErrorKind;
  readonly options?: Partial<UpstreamErrorOptions>;
  readonly hasCredentials?: boolean;
  readonly wanted?: Wanted;
  readonly status: number;
  readonly code: string;
  readonly detail?: string;
  readonly retryAfterMs?: number;
  readonly stale: StaleOffer;
  /** The text after `entrepot; `. */
  readonly cacheStatus: string;
  /** The same text for a stale answer instead of the error. */
  readonly staleStatus?: string;
}

/** The table of design.md section 5, row by row. */
const TABLE: readonly Row[] = [
  ...(["manifest", "blob", "list"] as const).map((wanted): Row => ({
    kind: "not-found",
    options: { status: 404 },
    wanted,
    status: 404,
    code: {
      manifest: "MANIFEST_UNKNOWN",
      blob: "BLOB_UNKNOWN",
      list: "NAME_UNKNOWN",
    }[wanted],
    stale: "never",
    cacheStatus: "fwd=miss; fwd-status=404",
  })),
  ...(
    [
      ["unauthorized", 401],
      ["denied", 403],
    ] as const
  ).flatMap(([kind, upstreamStatus]): Row[] => [
    {
      kind,
      options: { status: upstreamStatus },
      status: 404,
      code: "NAME_UNKNOWN",
      stale: "never",
      cacheStatus: `fwd=miss; fwd-status=${upstreamStatus}`,
    },
    {
      kind,
      options: { status: upstreamStatus },
      hasCredentials: true,
      status: 403,
      code: "DENIED",
      stale: "always",
      cacheStatus: `fwd=miss; fwd-status=${upstreamStatus}`,
      staleStatus: `fwd=stale; fwd-status=${upstreamStatus}; detail=stale`,
    },
  ]),
  {
    kind: "unauthorized",
    options: { isLocal: true },
    hasCredentials: true,
    status: 403,
    code: "DENIED",
    detail: "the mirror's own credentials for the upstream cannot be read",
    stale: "always",
    cacheStatus: "hit; detail=negative",
    staleStatus: "hit; detail=stale",
  },
  {
    kind: "rate-limited",
    options: { status: 429, retryAfterMs: 3_600_000 },
    status: 429,
    code: "TOOMANYREQUESTS",
    retryAfterMs: 10_000,
    stale: "always",
    cacheStatus: "fwd=miss; fwd-status=429",
    staleStatus: "fwd=stale; fwd-status=429; detail=stale",
  },
  {
    kind: "rate-limited",
    options: { status: 429, retryAfterMs: 2_000, isLocal: true },
    status: 429,
    code: "TOOMANYREQUESTS",
    retryAfterMs: 2_000,
    stale: "always",
    cacheStatus: "hit; detail=negative",
    staleStatus: "hit; detail=stale",
  },
  {
    kind: "rate-limited",
    options: { status: 429 },
    status: 429,
    code: "TOOMANYREQUESTS",
    retryAfterMs: 5_000,
    stale: "always",
    cacheStatus: "fwd=miss; fwd-status=429",
  },
  ...[500, 502, 503, 504].map((upstreamStatus): Row => ({
    kind: "unavailable",
    options: { status: upstreamStatus },
    status: 502,
    code: "UNAVAILABLE",
    stale: "when-complete",
    cacheStatus: `fwd=miss; fwd-status=${upstreamStatus}`,
    staleStatus: `fwd=stale; fwd-status=${upstreamStatus}; detail=stale`,
  })),
  ...(["unreachable", "interrupted", "digest-mismatch"] as const).map(
    (kind): Row => ({
      kind,
      status: 502,
      code: "UNAVAILABLE",
      stale: "when-complete",
      cacheStatus: "fwd=miss",
      staleStatus: "fwd=stale; detail=stale",
    }),
  ),
  {
    kind: "bad-response",
    options: { status: 200 },
    status: 502,
    code: "UNAVAILABLE",
    stale: "when-complete",
    cacheStatus: "fwd=miss; fwd-status=200",
  },
  {
    kind: "too-large",
    options: { status: 200 },
    status: 502,
    code: "MANIFEST_INVALID",
    stale: "when-complete",
    cacheStatus: "fwd=miss; fwd-status=200",
  },
  {
    kind: "timeout",
    status: 504,
    code: "UNAVAILABLE",
    stale: "when-complete",
    cacheStatus: "fwd=miss",
    staleStatus: "fwd=stale; detail=stale",
  },
  {
    kind: "breaker-open",
    options: { retryAfterMs: 300_000, isLocal: true },
    status: 503,
    code: "UNAVAILABLE",
    retryAfterMs: 10_000,
    stale: "when-complete",
    cacheStatus: "hit; detail=negative",
    staleStatus: "hit; detail=stale",
  },
  {
    // The storage of a redirect failed, so the endpoint did receive a request.
    kind: "breaker-open",
    options: { retryAfterMs: 1_000 },
    status: 503,
    code: "UNAVAILABLE",
    retryAfterMs: 1_000,
    stale: "when-complete",
    cacheStatus: "fwd=miss",
  },
  {
    kind: "overloaded",
    options: { retryAfterMs: 1_000, isLocal: true },
    status: 503,
    code: "UNAVAILABLE",
    retryAfterMs: 1_000,
    stale: "when-complete",
    cacheStatus: "hit; detail=negative",
  },
];

function summaryOf(refusal: Refusal): readonly unknown[] {
  const { status, code } = refusal.error;
  return [status, code, refusal.status.text.replace(/^entrepot; /, "")];
}

void describe("the response to a failure of the upstream", () => {
  for (const row of TABLE) {
    const { kind, options, wanted = "manifest", hasCredentials = false } = row;
    const name = [
      kind,
      options?.status,
      options?.isLocal === true ? "known here" : undefined,
      hasCredentials ? "with credentials" : undefined,
      wanted,
    ].filter((part) => part !== undefined);
    void it(`is ${row.status} ${row.code} for ${name.join(", ")}`, () => {
      const failure = new UpstreamError(kind, CANARY, {
        upstream: "registry.example",
        cause: new Error(CANARY),
        ...options,
      });
      const context = { wanted, hasCredentials };
      const refusal = toRefusal(failure, context);
      assert.deepEqual(summaryOf(refusal), [
        row.status,
        row.code,
        row.cacheStatus,
      ]);
      if (row.detail !== undefined) {
        assert.equal(refusal.error.detail, row.detail);
      }
      assert.equal(refusal.error.retryAfterMs, row.retryAfterMs);
      assert.equal(judgeUpstreamFailure(failure, context).stale, row.stale);
      if (row.staleStatus !== undefined) {
        assert.equal(staleStatus(failure).text, `entrepot; ${row.staleStatus}`);
      }
      assert.doesNotMatch(refusal.error.toBody(), /canary|own words/);
    });
  }

  void it("is in the table for every kind of failure", () => {
    const kinds: Record<UpstreamErrorKind, true> = {
      unreachable: true,
      timeout: true,
      unauthorized: true,
      denied: true,
      "not-found": true,
      "rate-limited": true,
      unavailable: true,
      "breaker-open": true,
      overloaded: true,
      "bad-response": true,
      interrupted: true,
      "digest-mismatch": true,
      "too-large": true,
    };
    assert.deepEqual(
      new Set(TABLE.map(({ kind }) => kind)),
      new Set(Object.keys(kinds)),
    );
  });
});

void describe("the response to a request that is not forwarded", () => {
  void it("states the reason, and that no request was forwarded", () => {
    assert.deepEqual(summaryOf(offlineRefusal("blob")), [
      404,
      "BLOB_UNKNOWN",
      "hit; detail=negative",
    ]);
    assert.equal(offlineRefusal("blob").error.detail, "offline");
    assert.deepEqual(summaryOf(policyRefusal("manifest")), [
      404,
      "MANIFEST_UNKNOWN",
      "hit; detail=negative",
    ]);
    assert.match(policyRefusal("list").error.detail ?? "", /not allowed/);
  });

  void it("is a bare 500 for a bug of the mirror", () => {
    const refusal = toRefusal(new TypeError(CANARY), {
      wanted: "blob",
      hasCredentials: false,
    });
    assert.deepEqual(summaryOf(refusal), [500, "UNKNOWN", "fwd=miss"]);
    assert.doesNotMatch(refusal.error.toBody(), /canary/);
  });

  void it("keeps an earlier decision", () => {
    const refusal = offlineRefusal("blob");
    const context = { wanted: "blob", hasCredentials: false } as const;
    assert.equal(toRefusal(refusal, context), refusal);
    const error = new RegistryError("MANIFEST_INVALID");
    assert.equal(toRefusal(error, context).error, error);
  });
});
