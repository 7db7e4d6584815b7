import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { writeOut } from "../../../src/cli/write-out.ts";
import { CollectedOutput } from "../../support/collected-output.ts";

function failing(code: string): Writable {
  return new Writable({
    write: (_chunk, _encoding, done) => {
      done(Object.assign(new Error(code), { code }));
    },
  });
}

void describe("the output of a command", () => {
  void it("is written before the command ends, and leaves no listener on the stream", async () => {
    const output = new CollectedOutput();
    await writeOut(output, "one\n");
    await writeOut(output, "two\n");
    assert.equal(output.text, "one\ntwo\n");
    assert.equal(output.listenerCount("error"), 0);
  });

  void it("is not a failure if the reader has closed the pipe (EPIPE)", async () => {
    await writeOut(failing("EPIPE"), "text");
  });

  void it("fails if it cannot be written", async () => {
    await assert.rejects(writeOut(failing("ENOSPC"), "text"), {
      code: "ENOSPC",
    });
  });
});
