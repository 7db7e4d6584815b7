import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import { compareSync } from "bcryptjs";
import { runPasswd } from "../../../../src/cli/setup/passwd.ts";
import { parseHtpasswd } from "../../../../src/config/files/htpasswd.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";

interface Printed {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function passwd(user: string, input: string): Promise<Printed> {
  const stdin = new PassThrough();
  stdin.end(input);
  return typed(user, stdin);
}

async function typed(
  user: string,
  stdin: Parameters<typeof runPasswd>[0]["stdin"],
): Promise<Printed> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const code = await runPasswd({ user, stdin, stdout, stderr });
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/** A terminal that types one of the lines after each prompt. */
function terminal(...lines: readonly string[]) {
  const modes: boolean[] = [];
  const stream = Object.assign(new PassThrough(), {
    isTTY: true as const,
    setRawMode(isRaw: boolean) {
      modes.push(isRaw);
      const line = isRaw ? lines[modes.length >> 1] : undefined;
      if (line !== undefined) stream.write(line);
      return stream as never;
    },
  });
  return { stream, modes };
}

void describe("entrepot passwd", () => {
  void it("prints a line that the mirror accepts, from a password on stdin", async () => {
    const { code, stdout, stderr } = await passwd("alice", "pässword\r\n");
    assert.equal(code, 0);
    assert.equal(stderr, "");
    const parsed = parseHtpasswd(stdout);
    assert.ok(parsed.ok);
    const hash = parsed.hashes.get("alice") ?? "";
    assert.match(hash, /^\$2b\$12\$/);
    assert.ok(compareSync("pässword", hash));
  });

  void it("reads it twice from a terminal, without echo and with backspace", async () => {
    const { stream, modes } = terminal("hunterr\u007f2\r", "hunter2\n");
    const { code, stdout, stderr } = await typed("bob", stream);
    assert.equal(code, 0);
    assert.deepEqual(modes, [true, false, true, false]);
    assert.equal(stderr, "Password of bob: \nRepeat the password: \n");
    assert.ok(compareSync("hunter2", stdout.trim().slice("bob:".length)));
  });

  void it("prints nothing if the two differ or it was interrupted", async () => {
    const differ = await typed("bob", terminal("one\r", "two\r").stream);
    assert.deepEqual([differ.code, differ.stdout], [1, ""]);
    const interrupted = await typed("bob", terminal("o\u0003").stream);
    assert.deepEqual([interrupted.code, interrupted.stdout], [1, ""]);
  });

  const refused: readonly (readonly [string, string, string])[] = [
    ["a user with a colon", "a:b", "x"],
    ["no user", "", "x"],
    ["a user that would be a comment", "#a", "x"],
    ["an empty password", "a", "\n"],
    ["two lines", "a", "x\ny\n"],
    ["a NUL, at which bcrypt would stop", "a", "x\0y"],
    ["a password longer than bcrypt reads", "a", "ä".repeat(37)],
  ];
  for (const [name, user, input] of refused) {
    void it(`rejects ${name} without printing it`, async () => {
      const { code, stdout, stderr } = await passwd(user, input);
      assert.deepEqual([code, stdout], [2, ""]);
      assert.match(stderr, /^entrepot: .+\n$/);
      assert.ok(!stderr.includes("ä"));
    });
  }
});
