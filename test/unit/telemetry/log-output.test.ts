import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";

const LOGGER = join(import.meta.dirname, "../../../src/telemetry/logger.ts");
const OUTPUT = join(
  import.meta.dirname,
  "../../../src/telemetry/log-output.ts",
);
const RECORDS = 2_000;

/** Logs so many records, and goes on with `then`. */
const program = (then: string) => `
  const { createLogger } = await import(${JSON.stringify(LOGGER)});
  const { LogOutput } = await import(${JSON.stringify(OUTPUT)});
  const log = createLogger({ level: "info" }, await LogOutput.open("json"));
  for (let n = 0; n < ${RECORDS}; n++) log.info({ n }, "request");
  ${then}
`;

/** The numbers of what it wrote, until it ends or wrote as many. */
async function run(then: string): Promise<unknown[]> {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", program(then)],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const numbers: unknown[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    numbers.push((JSON.parse(line) as { n: unknown }).n);
    if (numbers.length === RECORDS) child.kill("SIGKILL");
  }
  return numbers;
}

void describe("records of requests are handed on some at a time", () => {
  const all = Array.from({ length: RECORDS }, (_, n) => n);
  const ends = {
    "the program just ends": "",
    "it is ended at once": "process.exit(0);",
    "the log is flushed, and all handlers are passed by":
      "log.flush(() => process.reallyExit(0));",
    "it goes on and logs nothing more": "setInterval(() => {}, 1_000);",
  };
  for (const [name, then] of Object.entries(ends)) {
    void it(`and all of them are written in order when ${name}`, async () => {
      assert.deepEqual(await run(then), all);
    });
  }
});
