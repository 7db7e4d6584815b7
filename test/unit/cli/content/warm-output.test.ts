import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  endText,
  failuresText,
  planText,
} from "../../../../src/cli/content/warm-output.ts";
import {
  BarProgress,
  LineProgress,
} from "../../../../src/cli/content/warm-progress.ts";
import { PLAIN } from "../../../../src/cli/output/output-style.ts";
import type { Job } from "../../../../src/images/jobs/job.ts";

const MIB = 2 ** 20;

function jobOf(changes: Partial<Job> = {}): Job {
  return {
    id: "7",
    kind: "warm",
    state: "running",
    done: 2,
    total: 10,
    bytes: 20 * MIB,
    bytesTotal: 40 * MIB,
    running: [
      { ref: "docker.io/library/app:1", bytes: 10 * MIB, bytesTotal: 30 * MIB },
      { ref: "quay.io/team/web:2", bytes: 0, bytesTotal: 0 },
    ],
    errors: [],
    errorCount: 0,
    notes: [],
    startedAt: "2026-01-01T00:00:00.000Z",
    endedAt: null,
    waitsUntil: null,
    ...changes,
  };
}

void describe("failures of a warm job", () => {
  void it("are summed up by their reason, in the order of the first", () => {
    assert.equal(
      failuresText(
        [
          { ref: "a:1", message: "absent" },
          { ref: "b:1", message: "the upstream is down" },
          { ref: "b:2", message: "the upstream is down" },
          { ref: "", message: "the work failed" },
        ],
        5,
      ),
      [
        "entrepot: a:1: absent",
        "entrepot: 2 images: the upstream is down",
        "entrepot:   b:1",
        "entrepot:   b:2",
        "entrepot: the work failed",
        "entrepot: and 1 more failures",
        "",
      ].join("\n"),
    );
  });

  void it("name twenty images of a reason, and count the rest", () => {
    const errors = Array.from({ length: 25 }, (_, at) => ({
      ref: `a:${at}`,
      message: "down",
    }));
    const lines = failuresText(errors, 25).trimEnd().split("\n");
    assert.equal(lines.length, 1 + 20 + 1);
    assert.equal(lines.at(-1), "entrepot:   and 5 more");
  });

  void it("cannot move the cursor", () => {
    const text = failuresText([{ ref: "a\u001B[2J", message: "b\nc" }], 1);
    assert.equal(text, "entrepot: a\uFFFD[2J: b\uFFFDc\n");
  });
});

void describe("the end of a warm job", () => {
  for (const [state, want] of [
    ["done", "10 images present, 20 MiB, in 1m 5s\n"],
    ["cancelled", "cancelled after 2 of 10 images\n"],
    [
      "failed",
      "0 failures; 2 of 10 images examined, 20 MiB present, in 1m 5s\n",
    ],
  ] as const) {
    void it(`is printed if it is ${state}`, () => {
      assert.equal(endText(jobOf({ state }), 65_000), want);
    });
  }
});

void describe("a dry run", () => {
  const counts = { manifests: 1, blobs: 3, bytes: 5 * MIB, pulls: 0 };

  void it("lists what is missing, and sums it up for each registry", () => {
    const text = planText(
      {
        images: [{ ref: "quay.io/a:1", ...counts, isPartial: false }],
        upstreams: [
          {
            name: "quay.io",
            images: 2,
            present: 1,
            ...counts,
            isPartial: false,
            pullsLeft: null,
          },
        ],
        errors: [],
        errorCount: 0,
        notes: [],
      },
      PLAIN,
    );
    assert.equal(
      text,
      [
        "IMAGE        MANIFESTS  BLOBS     SIZE  PULLS",
        "quay.io/a:1          1      3  5.0 MiB      0",
        "quay.io: 1 of 2 images present; 1 manifest and 3 blobs to fetch, 5.0 MiB; no pull budget is stated",
        "",
      ].join("\n"),
    );
  });

  void it("says what is a lower bound, and why", () => {
    const text = planText(
      {
        images: [
          {
            ref: "docker.io/library/a:1",
            manifests: 1,
            blobs: 0,
            bytes: 0,
            pulls: 1,
            isPartial: true,
          },
        ],
        upstreams: [
          {
            name: "docker.io",
            images: 1,
            present: 0,
            manifests: 1,
            blobs: 0,
            bytes: 0,
            pulls: 1,
            isPartial: true,
            pullsLeft: 87,
          },
        ],
        errors: [],
        errorCount: 0,
        notes: [],
      },
      PLAIN,
    );
    assert.match(text, /≥ 1 +≥ 0 +unknown +≥ 1\n/);
    assert.match(text, /at least 1 of 87 requests of the pull budget\n/);
    assert.match(text, /each platform of these images costs one more\.\n$/);
  });
});

void describe("the progress of a warm job", () => {
  void it("is a line for each state, and one in five seconds at most, without a terminal", () => {
    const view = new LineProgress();
    const shown = [
      view.show(jobOf({ state: "queued" }), 0),
      view.show(jobOf(), 500),
      view.show(jobOf({ bytes: 25 * MIB }), 1_000),
      view.show(jobOf({ bytes: 30 * MIB }), 5_500),
      view.show(jobOf({ waitsUntil: "2026-01-01T06:00:00.000Z" }), 11_000),
    ];
    assert.deepEqual(shown, [
      "job 7: queued\n",
      "job 7: running\n2 of 10 images, 20 MiB of 40 MiB\n",
      "",
      // 10 MiB in 5.5 s; 133 MiB in all by the mean of three images.
      "2 of 10 images, 30 MiB of 40 MiB, 1.8 MiB/s, about 57s left\n",
      "2 of 10 images, waits for the pull budget until 2026-01-01 06:00 UTC\n",
    ]);
  });

  void it("is a bar for each image and one for the job on a terminal, drawn over the last", () => {
    const view = new BarProgress({ width: 80, isColoured: false });
    const first = view.show(jobOf(), 0);
    const lines = first.split("\n");
    assert.equal(lines.length, 4);
    assert.match(
      lines[0] ?? "",
      /^docker\.io\/library\/app:1 +\[#{7}-{13}\] {2}10 MiB of 30 MiB$/,
    );
    assert.match(lines[2] ?? "", /^2 of 10 images +\[#{4}-{16}\]/);
    for (const line of lines) assert.ok(line.length < 80, line);
    assert.ok(view.show(jobOf(), 500).startsWith("\u001B[3A\u001B[0J"));
    assert.equal(view.clear(), "\u001B[3A\u001B[0J");
    assert.equal(view.clear(), "");
  });

  for (const width of [20, 40, 60, 200]) {
    void it(`fits a terminal of ${width} columns`, () => {
      const view = new BarProgress({ width, isColoured: false });
      const running = Array.from({ length: 20 }, (_, at) => ({
        ref: `registry.example/a-long-repository/name:${at}`,
        bytes: at,
        bytesTotal: 20,
      }));
      const lines = view.show(jobOf({ running }), 0).trimEnd().split("\n");
      assert.equal(lines.length, 8 + 1 + 1);
      for (const line of lines) assert.ok(line.length < width, line);
    });
  }
});
