import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";

const source = (file: string) =>
  JSON.stringify(join(import.meta.dirname, "../../../src/telemetry", file));

/** Every write to it fails with ENOSPC, as one to a file on a full disk does. */
const FULL = "/dev/full";

const program = (afterwards: string) => `
  const { LogOutput } = await import(${source("log-output.ts")});
  const { openAudit } = await import(${source("audit.ts")});
  const faults = [];
  const output = await LogOutput.open("json");
  const audit = await openAudit("-", (error) => faults.push(error.code));
  // More than one failed write: the first error of a stream is caught by pino itself.
  for (let i = 0; i < 4; i++) {
    output.write("a record\\n");
    audit.record({ event: "login-failed", client: "::1", user: "u", reason: "password" });
    await output.flush();
    while (faults.length <= i) await new Promise((resolve) => setImmediate(resolve));
  }
  process.stderr.write("goes on");
  ${afterwards}
`;

function start(test: TestContext, afterwards: string) {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", program(afterwards)],
    { stdio: ["ignore", openSync(FULL, "w"), "pipe"] },
  );
  test.after(() => child.kill("SIGKILL"));
  return child;
}

void describe("a log whose writes fail", { skip: !existsSync(FULL) }, () => {
  const ends: Record<string, string> = {
    "an orderly end": `
      await Promise.all([audit.close(), output.end()]);
      process.exit(3);`,
    "an exit at once": `
      await audit.close();
      output.write("the last record\\n");
      process.exit(3);`,
  };
  for (const [name, afterwards] of Object.entries(ends)) {
    void it(
      `costs records, neither the process nor ${name}`,
      { timeout: 30_000 },
      async (test) => {
        const child = start(test, afterwards);
        let said = "";
        child.stderr?.on("data", (chunk: Buffer) => (said += String(chunk)));
        assert.deepEqual(await once(child, "close"), [3, null]);
        assert.equal(said, "goes on");
      },
    );
  }
});
