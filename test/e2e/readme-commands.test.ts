import assert from "node:assert/strict";
import { cp, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Child } from "../support/child-process.ts";
import { CLIENT_FILES } from "../support/engines/client-files.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../..");
/** What a clone holds and the program needs. */
const SOURCES = ["package.json", "package-lock.json", ".npmrc", "src"];
/** Packages come over the network. */
const INSTALL_TIMEOUT_MS = 300_000;

/** Ports of the system's choice in the place of 5000 and 5001, which somebody may be using. */
const FREE_PORTS = {
  ENTREPOT_LISTEN: "127.0.0.1:0",
  ENTREPOT_OPERATOR__LISTEN: "127.0.0.1:0",
};

void describe("the README's commands", () => {
  void it("npm ci && npm start answers in a fresh clone, with its data in ./data", async (test) => {
    const clone = await tempDir(test, "clone-");
    for (const name of SOURCES) {
      await cp(join(PROJECT, name), join(clone, name), { recursive: true });
    }
    const child = new Child(test, {
      command: "sh",
      args: ["-c", "npm ci && npm start"],
      cwd: clone,
      env: FREE_PORTS,
      isWrapper: true,
    });
    await answers(await listening(child));
    const exit = await child.terminate();
    assert.deepEqual(exit, { code: 0, signal: null }, child.output());
    assert.ok((await readdir(join(clone, "data"))).includes("index.sqlite"));
  });

  void it("npm start hands its options on", async (test) => {
    const dir = await tempDir(test);
    const file = join(dir, "entrepot.yaml");
    await writeFile(
      file,
      "listen: 127.0.0.1:0\noperator: {listen: false}\nstorage: {root: here}\n",
    );
    const child = new Child(test, {
      command: "npm",
      args: ["start", "--", "--config", file],
      cwd: PROJECT,
      isWrapper: true,
    });
    await answers(await listening(child));
    const exit = await child.terminate();
    assert.deepEqual(exit, { code: 0, signal: null }, child.output());
    assert.ok((await readdir(join(dir, "here"))).includes("index.sqlite"));
  });

  void it("containerd takes the folder of hosts.toml from its configuration", async () => {
    await requireCommands(["containerd"]);
    const file = join(CLIENT_FILES, "containerd/config.toml");
    const { stdout } = await runCommand("containerd", [
      `--config=${file}`,
      "config",
      "dump",
    ]);
    assert.match(
      stdout,
      /\[plugins\."io\.containerd\.grpc\.v1\.cri"\.registry\]\n\s+config_path = "\/etc\/containerd\/certs\.d"/,
    );
  });
});

async function listening(child: Child): Promise<string> {
  return child.line(
    (line) => /"listen":\["(127\.0\.0\.1:\d+)"\]/.exec(line)?.[1],
    INSTALL_TIMEOUT_MS,
  );
}

async function answers(host: string): Promise<void> {
  const response = await fetch(`http://${host}/v2/`);
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "{}");
}
