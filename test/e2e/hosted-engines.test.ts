import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { basic } from "../support/access.ts";
import type { AfterTest } from "../support/after-test.ts";
import { Buildah } from "../support/engines/buildah.ts";
import { ClientFolder } from "../support/engines/client-folder.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import {
  type HostedRegistry,
  startGuardedRegistry,
  startOpenRegistry,
} from "../support/engines/hosted-registry.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { trustAuthority } from "../support/engines/own-address.ts";
import { Podman } from "../support/engines/podman.ts";
import { INSTALLED, type Programs } from "../support/engines/programs.ts";
import { writeShellArchive } from "../support/engines/shell-archive.ts";
import { refusal, runCommand } from "../support/run-command.ts";

/** An engine as its user sees it. */
interface PushingEngine {
  login(user: string, password: string): Promise<string>;
  /** Creates a local image under this name. */
  create(reference: string): Promise<unknown>;
  push(reference: string): Promise<unknown>;
  /** Removes the local image. */
  remove(reference: string): Promise<unknown>;
  pull(reference: string): Promise<unknown>;
  /** Fails if the local image is missing or cannot be used. */
  use(reference: string): Promise<unknown>;
}

interface EngineCase {
  readonly name: string;
  readonly certificates: "docker" | "containers";
  readonly start: (
    test: AfterTest,
    registry: HostedRegistry,
  ) => Promise<PushingEngine>;
}

function dockerd(programs: Programs, hasContainerdStore: boolean): EngineCase {
  return {
    name: `dockerd, ${programs.name}${hasContainerdStore ? ", with the containerd image store" : ""}`,
    certificates: "docker",
    start: async (test, { host }) => {
      const engine = await Dockerd.start(test, undefined, {
        programs,
        hasContainerdStore,
      });
      const archive = await writeShellArchive(test);
      return {
        login: (user, password) =>
          engine.docker("login", "-u", user, "-p", password, host),
        create: (reference) => engine.docker("import", archive, reference),
        push: (reference) => engine.docker("push", reference),
        remove: (reference) => engine.docker("rmi", reference),
        pull: (reference) => engine.docker("pull", reference),
        use: (reference) => engine.docker("inspect", reference),
      };
    },
  };
}

function podman(programs: Programs): EngineCase {
  return {
    name: `podman, ${programs.name}`,
    certificates: "containers",
    start: async (test, { host, guard }) => {
      const isTls = guard !== undefined;
      const engine = await Podman.start(test, { host, isTls }, programs);
      const archive = await writeShellArchive(test);
      return {
        login: (user, password) =>
          engine.podman("login", "-u", user, "-p", password, host),
        create: (reference) => engine.podman("import", archive, reference),
        push: (reference) => engine.podman("push", reference),
        remove: (reference) => engine.podman("rmi", reference),
        pull: (reference) => engine.podman("pull", reference),
        use: (reference) => engine.podman("image", "inspect", reference),
      };
    },
  };
}

function buildah(programs: Programs): EngineCase {
  return {
    name: `buildah, ${programs.name}`,
    certificates: "containers",
    start: async (test, { host, guard }) => {
      const isTls = guard !== undefined;
      const engine = await Buildah.start(test, { host, isTls }, programs);
      const archive = await writeShellArchive(test);
      return {
        login: (user, password) =>
          engine.buildah("login", "-u", user, "-p", password, host),
        create: async (reference) => {
          await engine.buildah("from", "--name=new", "scratch");
          await engine.buildah("add", "new", archive, "/");
          await engine.buildah("commit", "--rm", "new", reference);
        },
        push: (reference) => engine.buildah("push", reference),
        remove: (reference) => engine.buildah("rmi", reference),
        pull: (reference) => engine.buildah("pull", reference),
        use: (reference) =>
          engine.buildah("inspect", "--type=image", reference),
      };
    },
  };
}

await requireCommands(["dockerd", "docker", "containerd", "ctr", "podman"]);
await requireCommands(["buildah", "tar"]);
const newer = await fetchNewerClients();

const ENGINES: readonly EngineCase[] = [
  dockerd(INSTALLED, false),
  dockerd(newer, false),
  dockerd(newer, true),
  podman(INSTALLED),
  podman(newer),
  buildah(INSTALLED),
  buildah(newer),
];

void describe("engines with hosted repositories", () => {
  for (const { name, certificates, start } of ENGINES) {
    void it(`${name} pushes and pulls, over plain HTTP and over TLS with a log-in`, async (test) => {
      const open = await startOpenRegistry(test);
      const engine = await start(test, open);
      await pushesAndPulls(engine, `${open.host}/nginx:alpine`);
      await pushesAndPulls(engine, `${open.host}/team/deep/app:1`);

      const guarded = await startGuardedRegistry(test);
      const { host, guard } = guarded;
      const other = await start(test, guarded);
      const reference = `${host}/team/app:1`;
      await other.create(reference);
      assert.match(await refusal(other.push(reference)), /x509/);
      await trustAuthority(test, certificates, host, guard.certificate);
      await refusal(other.push(reference));
      await refusal(other.login(guard.user, "wrong"));
      assert.match(
        await other.login(guard.user, guard.password),
        /Login Succeeded/,
      );
      await pushesAndPulls(other, reference);
    });
  }

  for (const programs of [INSTALLED, newer]) {
    void it(`containerd, ${programs.name}, pulls and pushes by the registry's own hosts.toml, over plain HTTP and TLS`, async (test) => {
      for (const start of [startOpenRegistry, startGuardedRegistry]) {
        const registry = await start(test);
        const { host, guard } = registry;
        const client = await ClientFolder.create(test, newer, registry);
        if (guard !== undefined) {
          const { user, password } = guard;
          const login = ["auth", "login", "-u", user, "-p", password];
          await client.run("crane", ...login, host);
        }
        await pushByCrane(client, `${host}/team/app:1`);
        const lines =
          guard === undefined
            ? ""
            : `  ca = "${guard.certificateFile}"
  [host."https://${host}".header]
    Authorization = ["${basic(guard.user, guard.password)}"]
`;
        const isTls = guard !== undefined;
        const address = { host, isTls, hostsToml: lines };
        const engine = await Containerd.start(test, address, programs);
        const [digest] = await engine.pull(`${host}/team/app:1`);
        assert.ok(digest !== undefined);
        const copy = `${host}/team/copy:1`;
        await engine.ctr("images", "tag", `${host}/team/app:1`, copy);
        await engine.push(copy);
        assert.equal(
          (await client.run("crane", "digest", copy)).trim(),
          digest,
        );
      }
    });
  }
});

async function pushByCrane(
  client: ClientFolder,
  reference: string,
): Promise<void> {
  await client.write("hello.txt", reference);
  await runCommand("tar", ["-cf", "layer.tar", "hello.txt"], {
    cwd: client.dir,
  });
  await client.run(
    "crane",
    "append",
    "--oci-empty-base",
    "--new_layer=layer.tar",
    `--new_tag=${reference}`,
  );
}

async function pushesAndPulls(
  engine: PushingEngine,
  reference: string,
): Promise<void> {
  await engine.create(reference);
  await engine.push(reference);
  // Everything is there: nothing is uploaded.
  await engine.push(reference);
  await engine.remove(reference);
  await refusal(engine.use(reference));
  await engine.pull(reference);
  await engine.use(reference);
}
