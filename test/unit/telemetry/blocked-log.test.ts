import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { it } from "node:test";

const LOGGER = join(import.meta.dirname, "../../../src/telemetry/logger.ts");
const OUTPUT = join(
  import.meta.dirname,
  "../../../src/telemetry/log-output.ts",
);
const AUDIT = join(import.meta.dirname, "../../../src/telemetry/audit.ts");

/** More than a pipe and both buffers hold. */
const PROGRAM = `
  const { createLogger } = await import(${JSON.stringify(LOGGER)});
  const { openAudit } = await import(${JSON.stringify(AUDIT)});
  const { LogOutput } = await import(${JSON.stringify(OUTPUT)});
  const log = createLogger({ level: "info" }, await LogOutput.open("json"));
  const audit = await openAudit("-", () => {});
  const user = "u".repeat(400);
  for (let i = 0; i < 40000; i++) {
    log.info({ user }, "request");
    audit.record({ event: "login-failed", client: "::1", user, reason: "password" });
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  process.stderr.write("done " + process.memoryUsage().rss);
  process.kill(process.pid, "SIGKILL");
`;

void it("a reader of the log that has stopped costs records, neither time nor memory (R9)", async (test) => {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", PROGRAM],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  test.after(() => child.kill("SIGKILL"));
  const [said] = (await once(child.stderr, "data")) as [Buffer];
  const [, rss] = /^done (\d+)/.exec(said.toString()) ?? [];
  assert.ok(Number(rss) < 300_000_000, said.toString());
});
