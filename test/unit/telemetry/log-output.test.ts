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
/** Several batches of them. */
const MANY = 2_000;
/** Less than a batch. */
const FEW = 500;

/** Logs so many records, and goes on with `afterwards`. */
const program = (records: number, afterwards: string) => `
  const { createLogger } = await import(${JSON.stringify(LOGGER)});
  const { LogOutput } = await import(${JSON.stringify(OUTPUT)});
  const output = await LogOutput.open("json");
  const log = createLogger({ level: "info" }, output);
  for (let n = 0; n < ${records}; n++) log.info({ n }, "request");
  ${afterwards}
`;

/** The numbers of what it wrote, until it ends or wrote as many. */
async function run(records: number, afterwards: string): Promise<unknown[]> {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", program(records, afterwards)],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const numbers: unknown[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    numbers.push((JSON.parse(line) as { n: unknown }).n);
    if (numbers.length === records) child.kill("SIGKILL");
  }
  return numbers;
}

void describe("records of requests are written in batches", () => {
  const ends: Record<string, { records?: number; afterwards: string }> = {
    "the program just ends": { afterwards: "" },
    // The end of a batch that a thread is writing cannot be awaited.
    "it is ended at once, and none of them was handed on yet": {
      records: FEW,
      afterwards: "process.exit(0);",
    },
    "the log is ended, and all handlers are passed by": {
      afterwards: "await output.end(); process.reallyExit(0);",
    },
    "it goes on and logs nothing more": {
      afterwards: "setInterval(() => {}, 1_000);",
    },
  };
  for (const [name, { records = MANY, afterwards }] of Object.entries(ends)) {
    void it(`and all of them are written in order when ${name}`, async () => {
      const all = Array.from({ length: records }, (_, n) => n);
      assert.deepEqual(await run(records, afterwards), all);
    });
  }
});
