import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import { ChildMirror } from "../support/child-mirror.ts";
import { ClientFolder } from "../support/engines/client-folder.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import {
  startGuardedRegistry,
  startOpenRegistry,
} from "../support/engines/hosted-registry.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { trustAuthority } from "../support/engines/own-address.ts";
import { writeShellArchive } from "../support/engines/shell-archive.ts";
import { codeBlocksOf } from "../support/markdown.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { runCommand } from "../support/run-command.ts";

const PROJECT = join(import.meta.dirname, "../..");
const README = await readFile(join(PROJECT, "README.md"), "utf8");

await requireCommands(["dockerd", "docker", "skopeo", "curl", "tar"]);
const newer = await fetchNewerClients();

void describe("the README's commands of a private registry", () => {
  void it("push, remove and pull an image by Docker, and list it by curl", async (test) => {
    const [yaml = ""] = blocksOf("A private registry", "yaml");
    // The five lines are the whole configuration; the test adds ports and a folder.
    const { host } = await ChildMirror.start(test, {
      config: parseYaml(yaml) as Record<string, unknown>,
    });
    const engine = await Dockerd.start(test);
    const archive = await writeShellArchive(test);
    const printed: string[] = [];
    for (const line of commandsOf("A private registry")) {
      const [program, ...args] = line
        .replaceAll("127.0.0.1:5000", host)
        .split(" ");
      if (program === "curl") {
        const { stdout } = await runCommand("curl", ["--fail", ...args]);
        printed.push(stdout);
      } else if (line === "docker pull nginx:alpine") {
        // Docker Hub cannot be reached here.
        await engine.docker("import", archive, "nginx:alpine");
      } else {
        assert.equal(program, "docker");
        await engine.docker(...args);
      }
    }
    const [expected = ""] = blocksOf("A private registry", "text");
    assert.deepEqual(printed.slice(0, 2), expected.trimEnd().split("\n"));
    const manifest = JSON.parse(printed[2] ?? "") as { layers: unknown[] };
    assert.equal(manifest.layers.length, 1);
  });

  void it("log in and push over TLS, with a certificate and a user of the commands", async (test) => {
    const registry = await startGuardedRegistry(test);
    const { host, guard } = registry;
    await trustAuthority(test, "docker", host, guard.certificate);
    await trustAuthority(test, "containers", host, guard.certificate);
    const engine = await Dockerd.start(test);
    const archive = await writeShellArchive(test);
    await engine.docker("import", archive, `${host}/team/app:1`);
    const client = await ClientFolder.create(test, newer, registry);
    const quay = await RealRegistry.start(test);
    await pushImages(client, quay.host, ["1"]);
    await client.run("helm", "create", "app");
    await client.run("helm", "package", "app", "--version=1.0.0");

    const lines = commandsOf("Users and TLS").filter(
      (line) => !line.startsWith("kubectl"),
    );
    // `startGuardedRegistry` runs the first three.
    assert.equal(
      lines.findIndex((line) => line.startsWith("docker")),
      3,
    );
    const login = ["-u", guard.user, "-p", guard.password];
    for (const line of lines.slice(3)) {
      const [program = "", ...words] = line
        .replaceAll("registry.internal:5000", host)
        .replace("quay.io", quay.host)
        .split(" ");
      const args = words.map((word) =>
        word === "alice:secret" ? `${guard.user}:${guard.password}` : word,
      );
      // It is asked for on a terminal.
      if (args.includes("login"))
        args.splice(args.indexOf("login") + 1, 0, ...login);
      if (args.includes("copy")) args.push("--src-tls-verify=false");
      if (program === "docker") await engine.docker(...args);
      else await client.run(program, ...args);
    }
    // The log-in of skopeo is in the folder that crane reads too.
    assert.equal(
      await client.run("crane", "catalog", host),
      "charts/app\nteam/app\n",
    );
  });

  void it("delete, tag and collect", async (test) => {
    const registry = await startOpenRegistry(test);
    const { host, mirror } = registry;
    const client = await ClientFolder.create(test, newer, registry);
    await pushImages(client, host, ["1", "2", "3", "4"]);
    const lines = commandsOf("Deletion and space");
    assert.ok(lines.length >= 6);
    for (const line of lines) {
      const adapted = line.replaceAll("registry.internal:5000", host);
      const [program = "", ...args] = adapted.split(" ");
      if (program === "skopeo") {
        await client.run(
          "skopeo",
          "delete",
          "--tls-verify=false",
          args[1] ?? "",
        );
        continue;
      }
      assert.equal(program, "entrepot");
      await runCommand(
        "npm",
        [
          "run",
          "--silent",
          "entrepot",
          "--",
          ...args,
          "--config",
          mirror.configFile,
        ],
        {
          cwd: PROJECT,
          // The file says port 0.
          env: {
            ENTREPOT_OPERATOR__LISTEN: new URL(mirror.operatorOrigin).host,
          },
        },
      );
    }
    assert.equal(
      await client.run("crane", "ls", `${host}/team/app`),
      "4\nstable\n",
    );
  });

  void it("move a registry by takeover", async (test) => {
    const old = await RealRegistry.start(test);
    const other = await startOpenRegistry(test);
    const client = await ClientFolder.create(test, newer, other);
    await pushImages(client, old.host, ["1", "2"]);
    const file = join(client.dir, "entrepot.yaml");
    const lines = commandsOf("Moving from registry:2").filter(
      (line) => !line.startsWith("skopeo "),
    );
    let mirror: ChildMirror | undefined;
    for (const line of lines) {
      const command = line
        .replaceAll("/etc/docker/registry/config.yml", old.configFile)
        .replaceAll("/var/lib/registry", old.storage)
        .replaceAll("entrepot.yaml", file)
        .replace(/^entrepot /, "npm run --silent entrepot -- ");
      if (command.startsWith("sudo systemctl stop ")) await old.stop();
      else if (command.startsWith("npm start ")) {
        const config = parseYaml(await readFile(file, "utf8")) as object;
        mirror = await ChildMirror.start(test, {
          config: { ...config, operator: { listen: "127.0.0.1:0" } },
        });
      } else await runCommand("sh", ["-c", command], { cwd: PROJECT });
    }
    assert.ok(mirror !== undefined);
    const tags = await client.run("crane", "ls", `${mirror.host}/team/app`);
    assert.equal(tags, "1\n2\n");
  });

  void it("move a registry by skopeo sync", async (test) => {
    const registry = await startOpenRegistry(test);
    const { host } = registry;
    const client = await ClientFolder.create(test, newer, registry);
    const old = await RealRegistry.start(test);
    await pushImages(client, old.host, ["1", "2"]);
    await writeFile(
      join(client.dir, "sync.yaml"),
      JSON.stringify({
        [old.host]: {
          "tls-verify": false,
          "images-by-tag-regex": { "team/app": "^2$" },
        },
      }),
    );
    const lines = commandsOf("Moving from registry:2").filter((line) =>
      line.startsWith("skopeo "),
    );
    assert.equal(lines.length, 2);
    for (const line of lines) {
      const [program = "", ...args] = line
        .replaceAll("registry.internal:5000", host)
        .replaceAll("old.internal:5000", old.host)
        .split(" ");
      await client.run(
        program,
        ...args,
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
      );
      const tags = await client.run("crane", "ls", `${host}/team/app`);
      assert.equal(tags, "1\n2\n");
    }
  });
});

/** Pushes an image of its own for each tag of `team/app`. */
async function pushImages(
  client: ClientFolder,
  host: string,
  tags: readonly string[],
): Promise<void> {
  await mkdir(join(client.dir, "layer"), { recursive: true });
  for (const tag of tags) {
    await client.write("layer/hello.txt", `${tag}\n`);
    await runCommand("tar", ["-cf", "layer.tar", "layer"], { cwd: client.dir });
    await client.run(
      "crane",
      "append",
      "--oci-empty-base",
      "--new_layer=layer.tar",
      `--new_tag=${host}/team/app:${tag}`,
    );
  }
}

function blocksOf(heading: string, language: string): readonly string[] {
  const section = README.split(/^##+ /m).find((text) =>
    text.startsWith(`${heading}\n`),
  );
  assert.ok(section !== undefined, heading);
  return codeBlocksOf(section)
    .filter((block) => block.language === language)
    .map(({ text }) => text);
}

function commandsOf(heading: string): readonly string[] {
  return blocksOf(heading, "sh").flatMap((text) => text.trimEnd().split("\n"));
}
