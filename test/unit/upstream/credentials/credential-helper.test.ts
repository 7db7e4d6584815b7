import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { askHelper } from "../../../../src/upstream/credentials/credential-helper.ts";
import { makeHelper } from "../../../support/credential-helper.ts";
import { runCommand } from "../../../support/run-command.ts";
import { tempDir } from "../../../support/temp-dir.ts";

/** A zombie process counts as ended. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

const BOUNDS = { timeoutMs: 10_000, maxBytes: 65_536 };

void describe("a credential helper", () => {
  void it("is run once for a login, with the server on its standard input", async (t) => {
    const helper = await makeHelper(t);
    await helper.gives("acme", "pa ss'\"$");
    const answer = await askHelper(helper.program, "registry.test:5000");
    assert.equal(answer.kind, "login");
    assert.ok(answer.kind === "login");
    assert.deepEqual(
      [answer.username, answer.secret.reveal(), answer.isIdentityToken],
      ["acme", "pa ss'\"$", false],
    );
    assert.deepEqual(await helper.runs(), ["get registry.test:5000"]);
  });

  void it("returns an identity token if the user is <token>", async (t) => {
    const helper = await makeHelper(t);
    await helper.gives("<token>", "refresh");
    const answer = await askHelper(helper.program, "registry.test");
    assert.ok(answer.kind === "login");
    assert.deepEqual(
      [answer.username, answer.secret.reveal(), answer.isIdentityToken],
      ["", "refresh", true],
    );
  });

  void it("is run without a shell", async (t) => {
    const folder = await tempDir(t);
    const file = join(folder, "made");
    for (const program of [
      `touch ${file}`,
      `$(touch ${file})`,
      `;touch ${file}`,
    ]) {
      const answer = await askHelper(program, "registry.test");
      assert.deepEqual(answer, {
        kind: "failed",
        reason: "cannot be run (ENOENT)",
      });
    }
    const helper = await makeHelper(t);
    await helper.gives("acme", "secret");
    await askHelper(helper.program, `$(touch ${file})`);
    assert.equal(existsSync(file), false);
  });

  void it("may have no login for the server", async (t) => {
    const helper = await makeHelper(t);
    await helper.does(
      "echo 'credentials not found in native keychain'; exit 1",
    );
    const answer = await askHelper(helper.program, "registry.test");
    assert.deepEqual(answer, { kind: "none" });
  });

  const FAILURES = [
    [
      "an exit code",
      "echo canary-secret; echo canary-secret >&2; exit 3",
      "ended with 3",
    ],
    ["a signal", "kill -9 $$", "ended with a signal"],
    ["no JSON", "echo canary-secret", "printed no login"],
    ["half a login", `echo '{"Username":"canary-secret"}'`, "printed no login"],
    [
      "a name with a colon",
      `echo '{"Username":"a:b","Secret":"canary-secret"}'`,
      "printed no login",
    ],
    ["no secret", `echo '{"Username":"acme","Secret":""}'`, "printed no login"],
  ] as const;
  for (const [name, script, reason] of FAILURES) {
    void it(`that ends with ${name} is reported without its output`, async (t) => {
      const helper = await makeHelper(t);
      await helper.does(script);
      const answer = await askHelper(helper.program, "registry.test");
      assert.deepEqual(answer, { kind: "failed", reason });
    });
  }

  void it("that prints endlessly is killed at the bound", async (t) => {
    const helper = await makeHelper(t);
    await helper.does("exec cat /dev/zero");
    const answer = await askHelper(helper.program, "registry.test");
    assert.deepEqual(answer, {
      kind: "failed",
      reason: "printed more than 65536 bytes",
    });
  });

  void it("that cannot get a descriptor is an ordinary failure, and the process survives", async () => {
    const asker = join(
      import.meta.dirname,
      "../../../support/helper-without-descriptors.ts",
    );
    const { stdout } = await runCommand("sh", [
      "-c",
      'ulimit -n 64; exec "$0" "$1"',
      process.execPath,
      asker,
    ]);
    assert.deepEqual(JSON.parse(stdout), {
      kind: "failed",
      reason: "cannot be run (EMFILE)",
    });
  });

  void it("that never answers is killed with its child processes", async (t) => {
    const helper = await makeHelper(t);
    const folder = await tempDir(t);
    const file = join(folder, "pid");
    await helper.does(`sleep 60 & echo $! > '${file}'; wait`);
    const answer = await askHelper(helper.program, "registry.test", {
      ...BOUNDS,
      timeoutMs: 500,
    });
    assert.deepEqual(answer, {
      kind: "failed",
      reason: "did not answer within 0.5 s",
    });
    const pid = Number(await readFile(file, "utf8"));
    for (let left = 10_000; isRunning(pid) && left > 0; left--) {
      await new Promise(setImmediate);
    }
    assert.equal(isRunning(pid), false);
  });
});
