import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Child } from "../support/child-process.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { tempDir } from "../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../..");

void describe("npm start on a terminal", () => {
  void it("prints its addresses, what it mirrors, and a command to try", async (test) => {
    await requireCommands(["script"]);
    const root = join(await tempDir(test), "data");
    const child = new Child(test, {
      command: "script",
      // `script` provides a terminal; its transcript is discarded.
      args: ["--quiet", "--return", "--command", "npm start", "/dev/null"],
      cwd: PROJECT,
      env: {
        ENTREPOT_LISTEN: "127.0.0.1:0",
        ENTREPOT_OPERATOR__LISTEN: "127.0.0.1:0",
        ENTREPOT_STORAGE__ROOT: root,
      },
      isWrapper: true,
    });
    await child.line((line) => (line.startsWith("Try: ") ? line : undefined));
    const [where = "", what, command] = child.lines
      .slice(-3)
      .map(({ text }) => text.trimEnd());
    const host =
      /^Listening on http:\/\/(127\.0\.0\.1:\d+); operator API on http:\/\/127\.0\.0\.1:\d+$/.exec(
        where,
      )?.[1];
    assert.ok(host, child.output());
    assert.equal(
      what,
      `Mirroring docker.io, quay.io, ghcr.io and 9 more, stored in ${root}`,
    );
    assert.equal(command, `Try: docker pull ${host}/docker.io/library/alpine`);
    const response = await fetch(`http://${host}/v2/`);
    assert.equal(response.status, 200);
  });
});
