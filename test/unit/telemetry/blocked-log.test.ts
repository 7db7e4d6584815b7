import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { it, type TestContext } from "node:test";

const LOGGER = join(import.meta.dirname, "../../../src/telemetry/logger.ts");
const OUTPUT = join(
  import.meta.dirname,
  "../../../src/telemetry/log-output.ts",
);
const AUDIT = join(import.meta.dirname, "../../../src/telemetry/audit.ts");

/** Logs and records more than a pipe and both buffers hold. */
const program = (afterwards: string) => `
  const { createLogger } = await import(${JSON.stringify(LOGGER)});
  const { openAudit } = await import(${JSON.stringify(AUDIT)});
  const { LogOutput } = await import(${JSON.stringify(OUTPUT)});
  const lost = { log: 0, audit: 0 };
  const output = await LogOutput.open("json", (lines) => (lost.log += lines.split("\\n").length - 1));
  const log = createLogger({ level: "info" }, output);
  const audit = await openAudit("-", () => lost.audit++);
  const user = "u".repeat(400);
  for (let i = 0; i < 40000; i++) {
    log.info({ user }, "request");
    audit.record({ event: "login-failed", client: "::1", user, reason: "password" });
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  ${afterwards}
`;

/** @returns a program whose log is not read */
function start(test: TestContext, afterwards: string) {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", program(afterwards)],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  test.after(() => child.kill("SIGKILL"));
  return child;
}

void it("a stopped reader of the log loses records, and costs neither time nor memory (R9)", async (test) => {
  const child = start(
    test,
    `process.stderr.write(JSON.stringify({ ...lost, rss: process.memoryUsage().rss }));
     process.kill(process.pid, "SIGKILL");`,
  );
  const [said] = (await once(child.stderr, "data")) as [Buffer];
  const lost = JSON.parse(said.toString()) as Record<string, number>;
  // Of 18 and 20 MB a pipe and the buffers hold 1 and 4 MiB.
  assert.ok((lost["log"] ?? 0) > 30_000, said.toString());
  assert.ok((lost["audit"] ?? 0) > 20_000, said.toString());
  assert.ok((lost["rss"] ?? Infinity) < 300_000_000, said.toString());
});

void it("a stopped reader of the log delays neither the exit nor a new audit file", async (test) => {
  const child = start(
    test,
    `await Promise.all([audit.close(), output.end()]);
     process.stderr.write("ended");
     process.exit(3);`,
  );
  const [said] = (await once(child.stderr, "data")) as [Buffer];
  assert.equal(said.toString(), "ended");
  assert.deepEqual(await once(child, "exit"), [3, null]);
});
