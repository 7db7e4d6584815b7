import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parseAllDocuments } from "yaml";
import { runCommand } from "../../support/run-command.ts";

const PROJECT = join(import.meta.dirname, "../../..");
const LAUNCHER = "bin/entrepot.cjs";
/** A signal must not open a debugger, and a parsed `__proto__` must not change a prototype. */
const FLAGS = "--disable-sigusr1 --disable-proto=delete";

function read(name: string): Promise<string> {
  return readFile(join(PROJECT, name), "utf8");
}

void describe("every way of starting", () => {
  void it("by npm's scripts passes the flags", async () => {
    const { scripts } = JSON.parse(await read("package.json")) as {
      readonly scripts: Readonly<Record<string, string>>;
    };
    for (const [name, script] of Object.entries(scripts)) {
      if (!script.includes("src/main.ts")) continue;
      assert.ok(script.includes(`node ${FLAGS} src/main.ts`), name);
    }
    assert.ok(scripts["start"]?.includes(FLAGS));
    assert.ok(scripts["entrepot"]?.includes(FLAGS));
  });

  void it("as a program of the package uses the launcher, which has the flags", async () => {
    const { bin, main, files } = JSON.parse(await read("package.json")) as {
      readonly bin: Readonly<Record<string, string>>;
      readonly main: string;
      readonly files: readonly string[];
    };
    assert.deepEqual(bin, { entrepot: LAUNCHER });
    assert.equal(main, LAUNCHER);
    assert.ok(files.includes("bin"));
    const [, flags = "[]"] =
      /^var FLAGS = (.+);$/m.exec(await read(LAUNCHER)) ?? [];
    assert.deepEqual(JSON.parse(flags), FLAGS.split(" "));
  });

  void it("as a container uses the launcher", async () => {
    const dockerfile = await read("Dockerfile");
    assert.match(
      dockerfile,
      /ln -s \/opt\/entrepot\/bin\/entrepot\.cjs \/usr\/local\/bin\/entrepot/,
    );
    const [, entrypoint = "[]"] = /^ENTRYPOINT (.+)$/m.exec(dockerfile) ?? [];
    assert.deepEqual(JSON.parse(entrypoint), ["entrepot"]);
  });

  void it("by compose or Kubernetes uses the image's own command", async () => {
    const kubernetes = (await readdir(join(PROJECT, "deploy/kubernetes"))).map(
      (name) => `deploy/kubernetes/${name}`,
    );
    for (const name of ["deploy/compose/compose.yaml", ...kubernetes]) {
      for (const document of parseAllDocuments(await read(name))) {
        for (const container of containersOf(document.toJS())) {
          assert.ok(!("command" in container), name);
          assert.ok(!("entrypoint" in container), name);
        }
      }
    }
  });

  void it("by systemd uses the launcher", async () => {
    assert.ok(
      (await read("deploy/systemd/entrepot.service")).includes(
        `\nExecStart=/usr/bin/node /opt/entrepot/${LAUNCHER} serve\n`,
      ),
    );
  });

  void it("without the flags applies the hardening itself, before it loads anything else", async () => {
    const main = await read("src/main.ts");
    const [harden, load] = ["\nhardenProcess();\n", "await import("].map(
      (text) => main.indexOf(text),
    );
    assert.ok(harden !== undefined && harden > 0 && load !== undefined);
    assert.ok(harden < load);
    const { stdout } = await runCommand(process.execPath, [
      "--input-type=module",
      "--eval",
      `import { hardenProcess } from ${JSON.stringify(join(PROJECT, "src/cli/harden-process.ts"))};
       hardenProcess();
       console.log("__proto__" in Object.prototype, process.listenerCount("SIGUSR1"));`,
    ]);
    assert.equal(stdout, "false 1\n");
  });
});

/** Returns the containers of a compose file or a manifest that run the mirror's image. */
function containersOf(value: unknown): object[] {
  if (typeof value !== "object" || value === null) return [];
  const image: unknown = Reflect.get(value, "image");
  const inner = Object.values(value).flatMap((part) => containersOf(part));
  return typeof image === "string" && /(?:^|\/)entrepot(?::|$)/.test(image)
    ? [value, ...inner]
    : inner;
}
