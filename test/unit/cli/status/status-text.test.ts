import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MirrorReport } from "../../../../src/cli/status/mirror-report.ts";
import {
  statusLine,
  statusText,
} from "../../../../src/cli/status/status-text.ts";
import { PLAIN } from "../../../../src/cli/output/output-style.ts";

const NOW_MS = Date.parse("2026-01-02T00:00:00Z");

const CREDENTIAL = {
  name: "anonymous",
  limit: null,
  remaining: null,
  resetsAt: null,
  restsForSeconds: 0,
  isRefused: false,
};
const ENDPOINT = {
  url: "https://registry.example",
  breaker: "closed",
  retryAfterSeconds: 0,
} as const;

const REPORT: MirrorReport = {
  version: "1.2.3",
  startedAt: "2026-01-01T21:55:00Z",
  offline: false,
  health: { ready: true, detail: { index: "ok", storage: "ok" } },
  cache: {
    requests: 200,
    hits: 197,
    hitRatio: 0.985,
    servedBytes: 3_221_225_472,
    receivedBytes: 1_073_741_824,
    savedBytes: 2_147_483_648,
  },
  storage: {
    root: "/data",
    bytes: 5_368_709_120,
    limitBytes: 10_737_418_240,
    freeBytes: 21_474_836_480,
    blobs: 30,
    manifests: 1,
    tags: 9,
    evictedImages: 2,
    oldestEvictedAgeSeconds: 864_000,
  },
  upstreams: [
    {
      name: "docker.io",
      state: "up",
      endpoints: [ENDPOINT],
      credentials: [
        {
          ...CREDENTIAL,
          limit: 100,
          remaining: 9,
          resetsAt: "2026-01-02T02:30:00Z",
        },
      ],
      lastError: null,
    },
    {
      name: "quay.io",
      state: "down",
      endpoints: [
        { ...ENDPOINT, breaker: "open", retryAfterSeconds: 7 },
        { ...ENDPOINT, url: "https://second.example:444" },
      ],
      credentials: [
        { ...CREDENTIAL, name: "one", remaining: 5 },
        { ...CREDENTIAL, name: "two", isRefused: true },
        { ...CREDENTIAL, name: "three", remaining: 0, restsForSeconds: 60 },
      ],
      lastError: {
        at: "2026-01-01T23:59:30Z",
        kind: "unreachable",
        message: "https://registry.example: ECONNREFUSED\u001B[2J",
      },
    },
  ],
  hosted: [
    {
      name: "local",
      default: false,
      repositories: 2,
      tags: 3,
      bytes: 1_048_576,
      quotaBytes: null,
      uploads: 0,
      uploadBytes: 0,
    },
    {
      name: "empty",
      default: false,
      repositories: 0,
      tags: 0,
      bytes: 0,
      quotaBytes: null,
      uploads: 0,
      uploadBytes: 0,
    },
  ],
  running: {
    fillCount: 3,
    fills: [
      {
        ref: "docker.io/library/app@sha256:12",
        bytes: 1_048_576,
        bytesTotal: 4_194_304,
        clients: 2,
      },
      {
        ref: "docker.io/library/app@sha256:34",
        bytes: 10,
        bytesTotal: null,
        clients: 0,
      },
    ],
    jobs: [
      {
        id: "j1",
        kind: "warm",
        state: "running",
        done: 3,
        total: 10,
        bytes: 1_024,
        bytesTotal: 2_048,
        running: [],
        errors: [],
        errorCount: 1,
        notes: [],
        startedAt: "2026-01-01T23:00:00Z",
        endedAt: null,
        waitsUntil: "2026-01-02T01:00:00Z",
      },
    ],
  },
};

void describe("the status of a mirror", () => {
  void it("is fields, and a table for each list", () => {
    assert.equal(
      statusText(REPORT, PLAIN, NOW_MS).replaceAll(/ {2,}/g, "  "),
      `entrepot 1.2.3, up 2h 5m, ready

hits     98.5 % of 200 requests since the start
saved    2.0 GiB (3.0 GiB served, 1.0 GiB received from upstreams)
space    5.0 GiB, limit 10 GiB (50.0 % used), 20 GiB free on disk
content  9 tags, 1 manifest, 30 blobs in /data
evicted  2 images; the latest was not pulled for 10d

UPSTREAM   STATE  BREAKER                                   PULL BUDGET                                             LAST ERROR
docker.io  up     closed                                    9 of 100, resets in 2h 30m                              -
quay.io    down   open (registry.example), retry in 7s      one: 5 left; two: refused; three: 0 left, rests for 1m  30s ago: https://registry.example: ECONNREFUSED\uFFFD[2J

HOSTED  REPOSITORIES  TAGS     SIZE  QUOTA  UPLOADS
local              2     3  1.0 MiB      -        0

DOWNLOAD                         PROGRESS                 CLIENTS
docker.io/library/app@sha256:12  1.0 MiB of 4.0 MiB (25 %)        2
docker.io/library/app@sha256:34  10 B                             0
and 1 more

JOB  KIND  STATE     IMAGES   PROGRESS                   ERRORS  SINCE
j1   warm  waits 1h  3 of 10  1.0 KiB of 2.0 KiB (50 %)       1  2026-01-01 23:00 UTC
`.replaceAll(/ {2,}/g, "  "),
    );
  });

  void it("names what is wrong, and says nothing of lists that are empty", () => {
    const text = statusText(
      {
        ...REPORT,
        offline: true,
        health: {
          ready: false,
          detail: { index: "ok", storage: "degraded: away" },
        },
        cache: { ...REPORT.cache, requests: 0, hitRatio: null },
        storage: {
          ...REPORT.storage,
          limitBytes: null,
          freeBytes: null,
          evictedImages: 0,
          oldestEvictedAgeSeconds: null,
        },
        upstreams: [],
        hosted: [],
        running: { fillCount: 0, fills: [], jobs: [] },
      },
      { width: undefined, isColoured: true },
      NOW_MS,
    );
    const [first] = text.split("\n");
    assert.equal(
      first,
      "entrepot 1.2.3, up 2h 5m, \u001B[31mnot ready\u001B[39m (storage degraded: away), \u001B[33moffline\u001B[39m",
    );
    assert.match(text, / no request since the start\n/);
    assert.match(text, / 5\.0 GiB, no limit\n/);
    assert.ok(text.trimEnd().endsWith("0 images"), text);
  });

  void it("is one line for a log", () => {
    assert.equal(
      statusLine(REPORT, NOW_MS),
      "2026-01-02T00:00:00.000Z  hits 98.5 %; saved 2.0 GiB; stored 5.0 GiB; downloads 3; jobs 1; quay.io down\n",
    );
  });
});
