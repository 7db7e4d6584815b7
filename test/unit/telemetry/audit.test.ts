import assert from "node:assert/strict";
import { readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  type AuditEvent,
  createAudit,
  openAudit,
} from "../../../src/telemetry/audit.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { tempDir } from "../../support/temp-dir.ts";

const EVENT: AuditEvent = {
  event: "tag-moved",
  upstream: "docker.io",
  repository: "library/alpine",
  tag: "3",
  from: "sha256:a",
  to: "sha256:b",
};

void describe("the audit", () => {
  void it("writes a numbered JSON line for each record", () => {
    const lines: string[] = [];
    const audit = createAudit(
      {
        write: (line) => lines.push(line),
        reopen: () => {},
        close: () => Promise.resolve(),
      },
      new FakeClock(),
    );
    audit.record(EVENT);
    audit.record(EVENT);
    assert.equal(lines.length, 2);
    const [first, second] = lines.map((line) => {
      assert.ok(line.endsWith("}\n"));
      return JSON.parse(line) as Record<string, unknown>;
    });
    assert.deepEqual(
      { ...first, time: undefined },
      { ...EVENT, seq: 1, time: undefined },
    );
    assert.equal(second?.["seq"], 2);
    assert.match(String(first?.["time"]), /^\d{4}-\d\d-\d\dT.*Z$/);
  });

  void it("limits foreign text to one line and a maximum length", () => {
    const lines: string[] = [];
    const audit = createAudit({
      write: (line) => lines.push(line),
      reopen: () => {},
      close: () => Promise.resolve(),
    });
    const user = `mallory\r\n{"event":"reloaded"}\u001b[2J\u009b2J\u0085\u2028\u202e${"x".repeat(1 << 20)}`;
    audit.record({
      event: "login-failed",
      client: "::1",
      user,
      reason: "password",
    });
    const [line = ""] = lines;
    assert.equal(line.indexOf("\n"), line.length - 1);
    // A terminal's orders of seven and eight bits, ends of lines, and text that runs backwards.
    for (const order of ["\u001b", "\u009b", "\u0085", "\u2028", "\u202e"]) {
      assert.ok(!line.includes(order), JSON.stringify(order));
    }
    assert.ok(line.length < 1_000, `${line.length}`);
  });

  void it("appends to a file that only its owner may read, and reopens it on request", async (test) => {
    const file = join(await tempDir(test), "audit.jsonl");
    const faults: unknown[] = [];
    const first = await openAudit(file, (error) => faults.push(error));
    first.record(EVENT);
    await first.close();
    const second = await openAudit(file, (error) => faults.push(error));
    second.record(EVENT);
    await second.close();
    assert.equal((await readFile(file, "utf8")).trim().split("\n").length, 2);
    assert.equal((await stat(file)).mode & 0o777, 0o600);

    const third = await openAudit(file, (error) => faults.push(error));
    await rename(file, `${file}.1`);
    third.reopen();
    third.record(EVENT);
    await third.close();
    assert.equal((await readFile(file, "utf8")).trim().split("\n").length, 1);
    assert.deepEqual(faults, []);
  });

  void it("has written every record once it is closed", async (test) => {
    const file = join(await tempDir(test), "audit.jsonl");
    const faults: unknown[] = [];
    const audit = await openAudit(file, (error) => faults.push(error));
    for (let n = 0; n < 1_000; n++) audit.record(EVENT);
    await audit.close();
    const lines = (await readFile(file, "utf8")).trim().split("\n");
    assert.deepEqual(
      lines.map((line) => (JSON.parse(line) as { seq: number }).seq),
      Array.from({ length: 1_000 }, (_, n) => n + 1),
    );
    assert.deepEqual(faults, []);
  });

  void it("fails to open if its file can't be opened", async (test) => {
    const file = join(await tempDir(test), "no", "audit.jsonl");
    await assert.rejects(
      openAudit(file, () => {}),
      { code: "ENOENT" },
    );
  });
});
