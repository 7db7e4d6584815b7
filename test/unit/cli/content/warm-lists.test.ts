import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, it } from "node:test";
import {
  readWarmArguments,
  type WarmArguments,
} from "../../../../src/cli/content/warm-lists.ts";
import type { ListFormat } from "../../../../src/images/lists/list-entry.ts";
import { type AfterTest, tempDir } from "../../../support/temp-dir.ts";

/** A folder with a list of every kind of name, read as the current folder. */
async function openFolder(test: AfterTest) {
  const cwd = await tempDir(test);
  await mkdir(join(cwd, "quay.io"));
  await mkdir(join(cwd, "lists"));
  for (const name of ["alpine", "images.yaml", "alpine:3.20", "lists/plain"]) {
    await writeFile(join(cwd, name), `list ${name}\n`);
  }
  return (
    args: readonly string[],
    stdin: string | Buffer = "",
    format?: ListFormat,
  ): Promise<WarmArguments> =>
    readWarmArguments(args, {
      cwd,
      home: cwd,
      stdin: Readable.from([Buffer.from(stdin)]),
      format,
    });
}

void describe("an argument of warm", () => {
  for (const [arg, kind] of [
    ["images.yaml", "list"],
    ["lists/plain", "list"],
    ["./alpine", "list"],
    ["~/alpine", "list"],
    // A file of that name exists, but the name has neither a path separator nor an extension.
    ["alpine", "ref"],
    // `.20` is an extension, so the file is meant.
    ["alpine:3.20", "list"],
    ["alpine:3.21", "ref"],
    // A folder.
    ["quay.io", "ref"],
    ["quay.io/team/app:1", "ref"],
  ] as const) {
    void it(`${arg} is a ${kind}`, async (test) => {
      const read = await openFolder(test);
      const { lists, refs } = await read([arg]);
      assert.deepEqual(
        [lists.map(({ name }) => name), refs],
        kind === "list" ? [[arg], []] : [[], [arg]],
      );
    });
  }

  for (const [arg, message] of [
    ["./absent.yaml", "./absent.yaml: got no such file; expected a readable"],
    ["/", "/: got a folder; expected a readable"],
  ] as const) {
    void it(`${arg} is refused by name`, async (test) => {
      const read = await openFolder(test);
      await assert.rejects(read([arg]), (error: Error) => {
        assert.ok(error.message.startsWith(message), error.message);
        return true;
      });
    });
  }

  void it("with the extension of a list is refused if there is no such file", async (test) => {
    const read = await openFolder(test);
    await assert.rejects(read(["absent.yaml"]), {
      message:
        "absent.yaml: got no such file; expected a readable list of images",
    });
    const { refs } = await read(["example.com/app.yaml:1"]);
    assert.deepEqual(refs, ["example.com/app.yaml:1"]);
  });

  void it("- is standard input, once", async (test) => {
    const read = await openFolder(test);
    const { lists } = await read(["-"], "alpine:3\n", "plain");
    assert.deepEqual(lists, [
      { name: "-", text: "alpine:3\n", format: "plain" },
    ]);
    await assert.rejects(read(["-", "-"]), /expected standard input once/);
    await assert.rejects(read(["-"], Buffer.of(0xff)), /not UTF-8/);
  });

  void it("is missing for --format if no list is among them", async (test) => {
    const read = await openFolder(test);
    await assert.rejects(
      read(["quay.io/team/app"], "", "plain"),
      /--format: got no list/,
    );
  });
});
