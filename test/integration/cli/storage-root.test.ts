import assert from "node:assert/strict";
import { chmod, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Child } from "../../support/child-process.ts";
import { ChildMirror } from "../../support/child-mirror.ts";
import { type AfterTest, tempDir } from "../../support/temp-dir.ts";

const MAIN = join(import.meta.dirname, "../../../src/main.ts");
const OTHER_USER = "65534";

/** Runs the program on a storage root until it exits by itself. */
async function serve(
  test: AfterTest,
  root: string,
  wrapper: readonly string[] = [],
): Promise<{ code: number | null; output: string }> {
  const folder = await tempDir(test);
  await chmod(folder, 0o755);
  const file = join(folder, "entrepot.yaml");
  await writeFile(
    file,
    JSON.stringify({
      listen: "127.0.0.1:0",
      operator: { listen: false },
      storage: { root },
    }),
  );
  const [command, ...rest] = [...wrapper, process.execPath];
  const child = new Child(test, {
    command,
    args: [...rest, MAIN, "serve", "--config", file],
    isWrapper: wrapper.length > 0,
  });
  const { code } = await child.exited;
  return { code, output: child.output() };
}

void describe("a storage root that needs repair by the operator", () => {
  for (const { name, rootIn, expected } of [
    {
      name: "is a file",
      rootIn: async (folder: string) => {
        const root = join(folder, "data");
        await writeFile(root, "");
        return root;
      },
      expected: /a folder; it is a file/,
    },
    {
      name: "is below a file",
      rootIn: async (folder: string) => {
        await writeFile(join(folder, "file"), "");
        return join(folder, "file", "data");
      },
      expected: /a folder, with folders below it \(.* ENOTDIR\)/,
    },
    {
      name: "has no parent",
      rootIn: (folder: string) =>
        Promise.resolve(join(folder, "not-mounted", "data")),
      expected: /a folder in an existing one; \S+\/not-mounted does not exist/,
    },
    {
      name: "is a link that leads nowhere",
      rootIn: async (folder: string) => {
        const root = join(folder, "data");
        await symlink(join(folder, "nowhere"), root);
        return root;
      },
      expected: /a folder that can be created/,
    },
    {
      name: "has a file in the place of its folders",
      rootIn: async (folder: string) => {
        const root = join(folder, "data");
        await mkdir(root);
        await writeFile(join(root, "blobs"), "");
        return root;
      },
      expected: /a folder, with folders below it \(making the folder \S+blobs/,
    },
    {
      name: "can't be made where folders can't",
      rootIn: () => Promise.resolve("/proc/entrepot-data"),
      expected: /a folder that can be created; \/proc does not allow it/,
    },
    {
      name: "can't be made deep where folders can't",
      rootIn: () => Promise.resolve("/proc/entrepot/data"),
      expected: /a folder in an existing one; \/proc\/entrepot does not exist/,
    },
    {
      name: "may not be made at all",
      rootIn: () => Promise.resolve("/sys/entrepot-data"),
      expected: /a folder that user \d+ may read and write/,
    },
  ]) {
    void it(`${name}: start exits with 2 and prints the expectation`, async (test) => {
      const root = await rootIn(await tempDir(test));
      const { code, output } = await serve(test, root);
      assert.ok(
        output.includes(`entrepot: storage.root: got ${root}; expected `),
        output,
      );
      assert.match(output, expected);
      assert.equal(code, 2);
    });
  }

  for (const isThere of [true, false]) {
    void it(`is not ${isThere ? "owned" : "creatable"} by the user: start exits with 2 and names the user`, async (test) => {
      const folder = await tempDir(test);
      const root = join(folder, "data");
      if (isThere) await mkdir(root, { mode: 0o500 });
      await chmod(folder, 0o555);
      const isRoot = process.getuid?.() === 0;
      const { code, output } = await serve(
        test,
        root,
        isRoot ? ["setpriv", "--clear-groups", "--reuid", OTHER_USER] : [],
      );
      await chmod(folder, 0o755);
      assert.ok(output.includes(`storage.root: got ${root}; `), output);
      assert.match(
        output,
        /a folder that user \d+ may read and write \(.*EACCES/,
      );
      assert.equal(code, 2);
    });
  }
});

void describe("a folder in place of the index file", () => {
  void it("is moved aside like a damaged index", async (test) => {
    const mirror = await ChildMirror.start(test);
    await mirror.terminate();
    await rm(join(mirror.root, "index.sqlite"));
    await mkdir(join(mirror.root, "index.sqlite"));
    await writeFile(join(mirror.root, "index.sqlite", "file"), "");
    await mirror.start();
    const messages = mirror.logs.map(({ msg }) => msg);
    assert.ok(
      messages.includes("the index was damaged; created a new one at start"),
      messages.join("\n"),
    );
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.match(await ready.text(), /"storage":"ok"/);
  });
});
