import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ChildMirror, hubConfig } from "../../support/child-mirror.ts";
import { Child } from "../../support/child-process.ts";
import { tempDir } from "../../support/temp-dir.ts";

/** Does what the harness asks of a mirror, and no more. */
const STAND_IN = `
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
const config = JSON.parse(readFileSync(process.argv[4], "utf8"));
let isReady = false;
const open = (address, answer) => new Promise((resolve) => {
  const server = createServer(answer);
  server.listen(Number(address.split(":")[1]), "127.0.0.1", () =>
    resolve("127.0.0.1:" + server.address().port));
});
const listen = [await open(config.listen, (_, response) => response.end(process.env.ANSWER))];
const operator = await open(config.operator.listen, (_, response) => {
  response.writeHead(isReady ? 200 : 503).end();
  isReady = true;
});
process.on("SIGTERM", () => process.exit(3));
console.log("no JSON");
console.log(JSON.stringify({ msg: "the mirror is listening", listen, operator }));
`;

void describe("a mirror as a child", () => {
  void it("is found by its log, ends by signals, and starts again on its ports", async (test) => {
    const dir = await tempDir(test);
    const main = join(dir, "main.mjs");
    await writeFile(main, STAND_IN);
    const mirror = await ChildMirror.start(test, {
      dir,
      main,
      config: hubConfig("http://127.0.0.1:1"),
      env: { ANSWER: "it is me" },
    });
    const answer = async (): Promise<string> =>
      (await fetch(`${mirror.origin}/v2/`)).text();
    assert.equal(await answer(), "it is me");
    assert.equal(mirror.logs.length, 1);
    assert.ok(mirror.child.rssBytes() > 20_000_000);
    assert.ok(mirror.child.peakRssBytes() >= mirror.child.rssBytes());
    const { port } = mirror;
    assert.deepEqual(await mirror.kill(), { code: null, signal: "SIGKILL" });
    await assert.rejects(answer);
    await mirror.start();
    assert.equal(mirror.port, port);
    assert.equal(await answer(), "it is me");
    assert.deepEqual(await mirror.terminate(), { code: 3, signal: null });
    const config = await readFile(join(dir, "entrepot.yaml"), "utf8");
    assert.match(config, new RegExp(`"listen": "127.0.0.1:${port}"`));
  });

  void it("shows what a mirror said that did not start", async (test) => {
    const dir = await tempDir(test);
    const main = join(dir, "main.mjs");
    await writeFile(main, "console.error('no room'); process.exit(2);");
    await assert.rejects(
      ChildMirror.start(test, { dir, main }),
      /ended with 2 before:\nno room/,
    );
  });
});

/** Empty for a process that has ended, reaped or not. */
function commandLineOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

void describe("a child process", () => {
  void it("is signalled and ended behind its wrapper", async (test) => {
    const child = new Child(test, {
      command: "sh",
      isWrapper: true,
      args: [
        "-c",
        `'${process.execPath}' -e 'console.log(process.pid); setInterval(() => {}, 1000)'; :`,
      ],
    });
    const pid = await child.line((text) => Number(text) || undefined);
    assert.notEqual(pid, child.pid);
    assert.ok(child.rssBytes() > 20_000_000);
    await child.kill();
    assert.equal(commandLineOf(pid), "");
  });

  void it("says that a command is missing", async (test) => {
    const child = new Child(test, { command: "entrepot-no-such-command" });
    assert.deepEqual(await child.exited, { code: 127, signal: null });
    assert.match(child.output(), /ENOENT/);
  });
});
