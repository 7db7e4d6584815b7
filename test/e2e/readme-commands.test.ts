import assert from "node:assert/strict";
import { cp, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { Child } from "../support/child-process.ts";
import { publishBusyboxImages } from "../support/engines/busybox-images.ts";
import { CLIENT_FILES } from "../support/engines/client-files.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { readmeBlocks } from "../support/readme-blocks.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../..");
/** The files of a clone that the program needs. */
const SOURCES = ["package.json", "package-lock.json", ".npmrc", "src"];
/** Packages are downloaded. */
const INSTALL_TIMEOUT_MS = 300_000;

/** Free ports in place of 5000 and 5001, which another process may use. */
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
    assert.doesNotMatch(child.output(), /EBADENGINE/);
    const exit = await child.terminate();
    assert.deepEqual(exit, { code: 0, signal: null }, child.output());
    assert.ok((await readdir(join(clone, "data"))).includes("index.sqlite"));
  });

  void it("npm start passes its options to the program", async (test) => {
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

  void it("the one-minute commands pull twice and print the hits; the commands on images then run", async (test) => {
    await requireCommands(["dockerd", "docker", "docker-registry", "curl"]);
    const { mirror, engine, image } = await startDocker(test);
    const adapt = (line: string): string =>
      line
        .replaceAll("127.0.0.1:5000", mirror.host)
        .replaceAll("http://127.0.0.1:5001", mirror.operatorOrigin)
        .replaceAll("library/alpine:3", image);
    const minute = await commandsOf("Try it in one minute");
    assert.equal(minute.length, 4);
    for (const line of minute.slice(0, 3).map(adapt)) {
      await engine.docker(...line.split(" ").slice(1));
    }
    const counters = await runLine(adapt(minute[3] ?? ""));
    assert.match(counters, /kind="blob",outcome="miss"\} [1-9]/);
    assert.match(counters, /kind="blob",outcome="hit"\} [1-9]/);

    const commands = await commandsOf("Images");
    assert.ok(commands.length >= 8);
    for (const line of commands) {
      const [, command = ""] = /^entrepot (.+)$/.exec(adapt(line)) ?? [];
      await runLine(
        `npm run --silent entrepot -- ${command} --config ${mirror.configFile}`,
        // The file says port 0.
        { ENTREPOT_OPERATOR__LISTEN: new URL(mirror.operatorOrigin).host },
      );
    }
  });

  void it("the commands for monitoring print answers", async (test) => {
    const mirror = await ChildMirror.start(test);
    const commands = await commandsOf("Monitoring");
    assert.ok(commands.length >= 4);
    for (const line of commands) {
      const adapted = line
        .replace(
          "curl -s http://127.0.0.1:5001",
          `curl --fail -s ${mirror.operatorOrigin}`,
        )
        .replace(
          /^entrepot (.+)$/,
          `npm run --silent entrepot -- $1 --config ${mirror.configFile}`,
        );
      assert.notEqual(adapted, line);
      // The file says port 0.
      const env = {
        ENTREPOT_OPERATOR__LISTEN: new URL(mirror.operatorOrigin).host,
      };
      assert.notEqual(await runLine(adapted, env), "", line);
    }
  });

  void it("containerd reads the folder of hosts.toml from its configuration", async () => {
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

/** Returns the shell commands of one section of the README. */
async function commandsOf(heading: string): Promise<readonly string[]> {
  return (await readmeBlocks(heading)).flat();
}

async function runLine(
  line: string,
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { stdout } = await runCommand("sh", ["-c", line], {
    cwd: PROJECT,
    env,
  });
  return stdout;
}

interface DockerScene {
  readonly mirror: ChildMirror;
  readonly engine: Dockerd;
  /** An image of the upstream, as `library/bb:1`. */
  readonly image: string;
}

async function startDocker(test: AfterTest): Promise<DockerScene> {
  const upstream = await RealRegistry.start(test);
  const { docker } = await publishBusyboxImages(test, upstream);
  const mirror = await ChildMirror.start(test, {
    config: hubConfig(upstream.origin),
  });
  const engine = await Dockerd.start(test, mirror);
  return { mirror, engine, image: `${docker.repository}:${docker.tag}` };
}

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
