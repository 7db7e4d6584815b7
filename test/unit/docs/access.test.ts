import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

const PAGE = join(import.meta.dirname, "../../../deploy/access.md");

function source(name: string): Promise<string> {
  const file = join(import.meta.dirname, "../../../src", `${name}.ts`);
  return readFile(file, "utf8");
}

void describe("deploy/access.md", () => {
  void it("shows configurations whose only faults are missing files", async (test) => {
    const folder = await makeConfigFolder(test);
    const text = await readFile(PAGE, "utf8");
    const blocks = [...text.matchAll(/^```yaml\n([^]*?)^```$/gm)].map(
      ([, block = ""]) => block,
    );
    assert.equal(blocks.length, 4);
    for (const block of blocks) {
      const result = await folder.loadText(block);
      for (const fault of printedFaults(result)) {
        assert.match(fault, / \(no such file\); /, block);
      }
      assert.deepEqual(printedWarnings(result), [], block);
    }
  });

  void it("states the limits that the source has", async () => {
    const text = await readFile(PAGE, "utf8");
    const passwords = await source("http/client-auth/passwords");
    const hasher = await source("http/client-auth/password-hasher");
    const htpasswd = await source("config/files/htpasswd");
    for (const [file, constant, stated] of [
      [passwords, "FAILURES_PER_USER = 10", "10 a minute for each address"],
      [passwords, "FAILURES_PER_ADDRESS = 30", "30 for each address"],
      [passwords, "VERIFIED_MS = 5 * 60_000", "within the last 5 minutes"],
      [passwords, "MAX_PASSWORD_BYTES = 72", "bcrypt's 72 bytes"],
      [hasher, "MAX_THREADS = 2", "2 threads of low priority"],
      [hasher, "MAX_WAITING = 64", "when 64 wait"],
      [htpasswd, "MAX_BCRYPT_COST = 14", "bcrypt of cost 14 at most"],
    ] as const) {
      assert.ok(file.includes(constant), constant);
      assert.ok(text.includes(stated), stated);
    }
  });
});
