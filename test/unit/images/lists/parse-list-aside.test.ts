import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import type { ParsedList } from "../../../../src/images/lists/list-entry.ts";
import { parseList } from "../../../../src/images/lists/parse-list.ts";
import { parseListAside } from "../../../../src/images/lists/parse-list-aside.ts";

function listOf(registries: number): string {
  return Array.from(
    { length: registries },
    (_, i) =>
      `r${i}.io:\n  images: {a: [], b: ['1', '!']}\n  images-by-tag-regex: {c: ^1}\n  images-by-semver: {d: '>=2'}\n`,
  ).join("");
}

const LARGE = listOf(1_000);

/** With the selections as the tags that they select. */
function plain(list: ParsedList): unknown {
  return {
    ...list,
    entries: list.entries.map((entry) =>
      entry.kind === "tags"
        ? { ...entry, selects: ["1.0", "2.0", "x"].filter(entry.selects) }
        : entry,
    ),
  };
}

function workerOf(program: string): Worker {
  return new Worker(program, {
    eval: true,
    resourceLimits: { maxOldGenerationSizeMb: 16 },
  });
}

void describe("a list parsed aside", () => {
  for (const [size, text] of [
    ["small", listOf(10)],
    ["large", LARGE],
  ] as const) {
    void it(`is as it is parsed here: a ${size} one`, async () => {
      const list = { name: "x.yaml", text };
      const aside = await parseListAside(list);
      assert.ok(aside.entries.length > 10);
      assert.deepEqual(plain(aside), plain(parseList(list)));
    });
  }

  void it("leaves the main thread free", async () => {
    let turns = 0;
    const timer = setInterval(() => {
      turns += 1;
    }, 1);
    try {
      await parseListAside({ name: "x.yaml", text: LARGE });
    } finally {
      clearInterval(timer);
    }
    assert.ok(turns >= 3, `${turns} turns`);
  });

  void it("is refused when its thread runs out of memory", async () => {
    const { entries, faults } = await parseListAside(
      { name: "x.yaml", text: LARGE },
      undefined,
      () => workerOf("const all = []; for (;;) all.push(Array(1e5).fill({}))"),
    );
    assert.deepEqual(entries, []);
    assert.deepEqual(faults, [
      {
        origin: "x.yaml:1",
        message:
          "got a list that takes more than 768 MB of memory to parse; expected several lists",
      },
    ]);
  });

  void it("ends with its signal", async () => {
    const controller = new AbortController();
    let ended = false;
    const parsing = parseListAside(
      { name: "x.yaml", text: LARGE },
      controller.signal,
      () => {
        const worker = workerOf("for (;;);");
        worker.once("online", () => controller.abort(new Error("stopped")));
        worker.once("exit", () => {
          ended = true;
        });
        return worker;
      },
    );
    await assert.rejects(parsing, { message: "stopped" });
    assert.ok(ended);
  });

  void it("rejects when its thread fails or ends", async () => {
    for (const program of ["throw new Error('broken')", "process.exit(0)"]) {
      await assert.rejects(
        parseListAside({ name: "x", text: LARGE }, undefined, () =>
          workerOf(program),
        ),
        /broken|the thread has ended/,
      );
    }
  });
});
