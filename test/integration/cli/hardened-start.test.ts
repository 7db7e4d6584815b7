import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Child } from "../../support/child-process.ts";
import { ChildMirror } from "../../support/child-mirror.ts";
import { rawRequest } from "../../support/raw-client.ts";
import { tempDir } from "../../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../../..");
const DEBUGGER = /Debugger|ws:\/\//;

void describe("SIGUSR1", () => {
  void it("opens no debugger in a mirror that was started without flags", async (test) => {
    const mirror = await ChildMirror.start(test);
    mirror.child.signal("SIGUSR1");
    const answer = await rawRequest({ port: mirror.port, path: "/v2/" });
    assert.equal(answer.status, 200);
    const exit = await mirror.terminate();
    assert.deepEqual(exit, { code: 0, signal: null });
    assert.doesNotMatch(mirror.child.output(), DEBUGGER);
  });

  void it("opens no debugger in a mirror started by npm start", async (test) => {
    const child = new Child(test, {
      command: "npm",
      args: ["start"],
      cwd: PROJECT,
      env: {
        ENTREPOT_LISTEN: "127.0.0.1:0",
        ENTREPOT_OPERATOR__LISTEN: "false",
        ENTREPOT_STORAGE__ROOT: join(await tempDir(test), "data"),
      },
      isWrapper: true,
    });
    await child.line((line) =>
      line.includes("the mirror is listening") ? line : undefined,
    );
    child.signal("SIGUSR1");
    const exit = await child.terminate();
    assert.deepEqual(exit, { code: 0, signal: null }, child.output());
    assert.doesNotMatch(child.output(), DEBUGGER);
  });
});
