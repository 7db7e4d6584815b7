import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../support/after-test.ts";
import { ClientFolder } from "../support/engines/client-folder.ts";
import { requireCommands } from "../support/engines/engine.ts";
import {
  type HostedRegistry,
  startGuardedRegistry,
  startOpenRegistry,
} from "../support/engines/hosted-registry.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { trustAuthority } from "../support/engines/own-address.ts";
import { INSTALLED, type Programs } from "../support/engines/programs.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { refusal, runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

await requireCommands(["skopeo", "docker-registry", "tar"]);
const newer = await fetchNewerClients();

/** Tags of the registry whose content is moved. */
const SOURCE = {
  "team/app": ["1.0", "1.1", "latest"],
  "team/lib": ["1.5", "1.6", "2.0", "2.0-rc1"],
  "team/tools": ["nightly"],
} as const;

void describe("skopeo with hosted repositories", () => {
  for (const programs of [INSTALLED, newer]) {
    void it(`${programs.name} copies, synchronizes, inspects, lists and deletes over plain HTTP`, async (test) => {
      const registry = await startOpenRegistry(test);
      await movesRegistry(test, programs, registry);
    });

    void it(`${programs.name} does the same over TLS with a log-in`, async (test) => {
      const registry = await startGuardedRegistry(test);
      const { host, guard } = registry;
      await trustAuthority(test, "containers", host, guard.certificate);
      const skopeo = await Skopeo.start(test, { host, isTls: true }, programs);
      const layout = await emptyLayout(test);
      const copy = async (...options: readonly string[]): Promise<string> =>
        skopeo.skopeo("copy", ...options, layout, `docker://${host}/creds:1`);
      assert.match(
        await refusal(copy()),
        /unauthorized|authentication required/,
      );
      const creds = (password: string): string =>
        `--dest-creds=${guard.user}:${password}`;
      assert.match(
        await refusal(copy(creds("wrong"))),
        /invalid username|unauthorized|authentication required/,
      );
      await copy(creds(guard.password));

      const authFile = join(await tempDir(test), "auth.json");
      const login = async (password: string): Promise<string> =>
        skopeo.skopeo(
          "login",
          `--authfile=${authFile}`,
          `--username=${guard.user}`,
          `--password=${password}`,
          host,
        );
      assert.match(await refusal(login("wrong")), /invalid username\/password/);
      assert.match(await login(guard.password), /Login Succeeded!/);
      await movesRegistry(test, programs, registry, authFile);
    });
  }
});

/** Moves a registry of the Distribution project as the README says, in every way that skopeo has. */
async function movesRegistry(
  test: AfterTest,
  programs: Programs,
  registry: HostedRegistry,
  authFile?: string,
): Promise<void> {
  const { host, guard } = registry;
  const isTls = guard !== undefined;
  const engine = await Skopeo.start(test, { host, isTls }, programs);
  const auth = authFile === undefined ? [] : [`--authfile=${authFile}`];
  const skopeo = async (
    command: string,
    ...args: readonly string[]
  ): Promise<string> => engine.skopeo(command, ...auth, ...args);
  const source = await RealRegistry.start(test);
  await fill(test, source, registry);
  const tagsOf = async (repository: string): Promise<readonly string[]> => {
    const list = await skopeo("list-tags", `docker://${host}/${repository}`);
    return (JSON.parse(list) as { Tags: string[] }).Tags;
  };
  const sync = async (...args: readonly string[]): Promise<string> =>
    skopeo("sync", "--src-tls-verify=false", ...args);

  await sync(
    "--src=docker",
    "--dest=docker",
    `${source.host}/team/app`,
    `${host}/moved`,
  );
  assert.deepEqual(await tagsOf("moved/app"), SOURCE["team/app"]);
  assert.equal(
    await digestOf(source.origin, "team/app", "1.0"),
    JSON.parse(await skopeo("inspect", `docker://${host}/moved/app:1.0`))
      .Digest,
  );

  const list = join(await tempDir(test), "sync.yaml");
  await writeFile(
    list,
    JSON.stringify({
      [source.host]: {
        "tls-verify": false,
        images: { "team/app": ["1.1"], "team/tools": [] },
        "images-by-tag-regex": { "team/lib": "^[0-9]+\\.[0-9]+$" },
      },
    }),
  );
  await sync("--src=yaml", "--dest=docker", list, `${host}/yaml`);
  assert.deepEqual(await tagsOf("yaml/app"), ["1.1"]);
  assert.deepEqual(await tagsOf("yaml/tools"), ["nightly"]);
  assert.deepEqual(await tagsOf("yaml/lib"), ["1.5", "1.6", "2.0"]);

  await skopeo(
    "copy",
    "--all",
    `docker://${host}/yaml/lib:1.5`,
    `docker://${host}/team/copy:1`,
  );
  await skopeo("inspect", "--raw", `docker://${host}/team/copy:1`);
  await skopeo("inspect", "--config", `docker://${host}/team/copy:1`);
  await skopeo("delete", `docker://${host}/yaml/lib:1.6`);
  assert.deepEqual(await tagsOf("yaml/lib"), ["1.5", "2.0"]);
  await refusal(skopeo("inspect", `docker://${host}/yaml/lib:1.6`));
}

/** Pushes an image of its own for each tag of {@link SOURCE}. */
async function fill(
  test: AfterTest,
  source: RealRegistry,
  registry: HostedRegistry,
): Promise<void> {
  const client = await ClientFolder.create(test, newer, {
    ...registry,
    guard: undefined,
  });
  for (const [repository, tags] of Object.entries(SOURCE)) {
    for (const tag of tags) {
      await client.write("hello.txt", `${repository}:${tag}\n`);
      await runCommand("tar", ["-cf", "layer.tar", "hello.txt"], {
        cwd: client.dir,
      });
      await client.run(
        "crane",
        "append",
        "--oci-empty-base",
        "--new_layer=layer.tar",
        `--new_tag=${source.host}/${repository}:${tag}`,
      );
    }
  }
}

async function digestOf(
  origin: string,
  repository: string,
  tag: string,
): Promise<string | null> {
  const response = await fetch(`${origin}/v2/${repository}/manifests/${tag}`, {
    headers: { accept: "application/vnd.oci.image.manifest.v1+json" },
  });
  await response.arrayBuffer();
  return response.headers.get("docker-content-digest");
}

/** Makes a small image in a folder. @returns its reference */
async function emptyLayout(test: AfterTest): Promise<string> {
  const dir = await tempDir(test, "layout-");
  await writeFile(join(dir, "hello.txt"), "hello\n");
  await runCommand("tar", ["-cf", "image.tar", "hello.txt"], { cwd: dir });
  return `tarball:${join(dir, "image.tar")}`;
}
