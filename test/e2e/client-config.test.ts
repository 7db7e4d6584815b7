import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { createCertificateAuthority } from "../support/certificate-authority.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { Buildkit } from "../support/engines/buildkit.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { type Engine, requireCommands } from "../support/engines/engine.ts";
import { InstalledClients } from "../support/engines/installed-clients.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { takeOwnAddress } from "../support/engines/own-address.ts";
import { Podman } from "../support/engines/podman.ts";
import {
  INSTALLED,
  type Programs,
  runProgram,
} from "../support/engines/programs.ts";
import { writeShellArchive } from "../support/engines/shell-archive.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { refusal } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

await requireCommands(["dockerd", "docker", "containerd", "ctr", "podman"]);
const newer = await fetchNewerClients();

interface EngineCase {
  readonly name: string;
  readonly engine: "docker" | "podman" | "containerd";
  readonly programs: Programs;
  readonly start: (test: AfterTest, programs: Programs) => Promise<Engine>;
  /** The reference of an image of quay.io. */
  readonly ofQuay: (host: string) => string;
  /** Whether its files can keep it from asking the registry itself. */
  readonly canBeOnly: boolean;
  /** Not in a newer containerd: `ctr run` loses output there. */
  readonly canRun: boolean;
  /** Whether it reads an authority from its own files. */
  readonly canTrust: boolean;
  /** Present before the command runs. */
  readonly before?: readonly [path: string, text: string];
}

/** Images of every registry are named as without the mirror. */
const AS_EVER = (): string => "quay.io/library/bb:1";

function dockerd(programs: Programs, hasContainerdStore: boolean): EngineCase {
  return {
    name: `dockerd, ${programs.name}${hasContainerdStore ? ", with the containerd image store" : ""}`,
    engine: "docker",
    programs,
    start: (test, installed) =>
      Dockerd.start(test, undefined, {
        programs: installed,
        hasContainerdStore,
        configFile: "/etc/docker/daemon.json",
      }),
    ofQuay: (host) => `${host}/quay.io/library/bb:1`,
    canBeOnly: false,
    canRun: true,
    canTrust: !hasContainerdStore,
    before: [
      "/etc/docker/daemon.json",
      JSON.stringify({
        "log-level": "info",
        ...(hasContainerdStore
          ? { features: { "containerd-snapshotter": true } }
          : {}),
      }),
    ],
  };
}

function podman(programs: Programs): EngineCase {
  return {
    name: `podman, ${programs.name}`,
    engine: "podman",
    programs,
    start: (test, installed) => Podman.start(test, undefined, installed),
    ofQuay: AS_EVER,
    canBeOnly: true,
    canRun: true,
    canTrust: true,
  };
}

function containerd(programs: Programs): EngineCase {
  return {
    name: `containerd, ${programs.name}`,
    engine: "containerd",
    programs,
    start: (test, installed) =>
      Containerd.startInstalled(test, "/etc/containerd/certs.d", installed),
    ofQuay: AS_EVER,
    canBeOnly: true,
    canRun: programs === INSTALLED,
    canTrust: true,
  };
}

const ENGINES: readonly EngineCase[] = [
  dockerd(INSTALLED, false),
  dockerd(newer, true),
  podman(INSTALLED),
  podman(newer),
  containerd(INSTALLED),
  containerd(newer),
];

/** What an engine says that asks a registry itself, without a route to it. */
const FALL_BACK = /registry-1\.docker\.io|https:\/\/quay\.io|lookup quay\.io/;

interface Scene {
  readonly mirror: ChildMirror;
  readonly config: Readonly<Record<string, unknown>>;
}

void describe("what client-config installs", () => {
  const suite = afterSuite();
  let hub: RealRegistry;
  let plain: Scene;
  let secured: Scene;

  before(async () => {
    hub = await RealRegistry.start(suite);
    await publishBusyboxImages(suite, hub);
    const quay = await RealRegistry.start(suite, { sharedWith: hub });
    const address = await takeOwnAddress(suite);
    const authority = createCertificateAuthority();
    const pair = authority.issue({ hosts: [address] });
    const start = async (
      tls: Readonly<Record<string, unknown>>,
    ): Promise<Scene> => {
      const dir = await tempDir(suite, "mirror-");
      const write = async (name: string, text: string): Promise<string> => {
        const file = join(dir, name);
        await writeFile(file, text, { mode: 0o600 });
        return file;
      };
      const certificateFile = await write(
        "tls.crt",
        pair.cert + authority.cert,
      );
      const keyFile = await write("tls.key", pair.key);
      const config = {
        listen: `${address}:0`,
        upstreams: {
          "docker.io": { default: true, endpoints: [hub.origin] },
          "quay.io": { endpoints: [quay.origin] },
        },
        ...("tls" in tls ? { tls: { certificateFile, keyFile } } : {}),
      };
      const mirror = await ChildMirror.start(suite, { dir, config });
      return { mirror, config };
    };
    plain = await start({});
    secured = await start({ tls: {} });
  });

  void it("lets BuildKit build from images of two registries, over plain HTTP and with TLS", async (test) => {
    for (const { mirror, config } of [plain, secured]) {
      const clients = await InstalledClients.create(test, config);
      await clients.install("buildkit", "--address", mirror.host);
      const programs = clients.programs(INSTALLED);
      const buildkit = await Buildkit.start(test, programs);
      const references = [
        "docker.io/library/bb:1",
        "quay.io/library/bb:1",
        `${mirror.host}/quay.io/library/bb:1`,
      ];
      const copies = await buildkit.copyOut(references, "/payload.bin");
      assert.deepEqual(
        copies,
        references.map(() => PAYLOAD_SHA256),
      );
    }
  });

  void it("gives containerd a configuration that names the folder, beside what was in it", async (test) => {
    for (const engine of [INSTALLED, newer]) {
      const clients = await InstalledClients.create(test, plain.config);
      await clients.install("containerd", "--address", plain.mirror.host);
      const { stdout } = await runProgram(
        clients.programs(engine),
        "containerd",
        ["config", "dump"],
      );
      assert.match(
        stdout,
        /\[plugins\..io\.containerd\.(?:grpc\.v1\.cri|cri\.v1\.images).\.registry\]\n\s+config_path = .\/etc\/containerd\/certs\.d/,
      );
      // A key of Debian's own file.
      assert.match(stdout, /path = .\/var\/lib\/containerd\/opt/);
    }
  });

  void it("gives Docker Docker Hub if the default registry is hosted: by a path, or by a host name of its own", async (test) => {
    const { mirror, config } = await startHosting(
      test,
      hub,
      hostOf(plain),
      "mirror.test",
    );
    // Docker 28 takes the path; an older one needs the name.
    for (const [programs, isNamed] of [
      [newer, false],
      [INSTALLED, true],
    ] as const) {
      const { upstreams, ...others } = config;
      const named = { ...others, upstreams: isNamed ? upstreams : HUB_ALONE };
      const clients = await InstalledClients.create(test, named);
      await clients.write(
        "/etc/hosts",
        `${hostOf({ mirror, config })} hub.test\n`,
      );
      await clients.install("docker", "--address", mirror.host);
      const engine = await Dockerd.start(test, undefined, {
        programs: clients.programs(programs),
        configFile: "/etc/docker/daemon.json",
      });
      await engine.pull("library/bb:1");
    }
  });

  void it("lets engines use a hosted registry by a name that looks like one", async (test) => {
    const { mirror, config } = await startHosting(
      test,
      hub,
      hostOf(plain),
      "registry.test",
    );
    const reference = "registry.test/team/app:1";
    const archive = await writeShellArchive(test);
    for (const programs of [INSTALLED, newer]) {
      const pushing = await InstalledClients.create(test, config);
      await pushing.install("podman", "--address", mirror.host);
      const pusher = await Podman.start(
        test,
        undefined,
        pushing.programs(programs),
      );
      // It maps the name for pulls only.
      const pushed = `${mirror.host}/${reference}`;
      await pusher.podman("import", archive, pushed);
      await pusher.podman("push", pushed);
      await pusher.pull(reference);
      const pulling = await InstalledClients.create(test, config);
      await pulling.install("containerd", "--address", mirror.host);
      const puller = await Containerd.startInstalled(
        test,
        "/etc/containerd/certs.d",
        pulling.programs(programs),
      );
      await puller.pull(reference);
      // Without ?ns= it would arrive in the default registry.
      await refusal(puller.push(reference));
      await puller.pull(pushed);
      await puller.push(pushed);
    }
  });

  for (const engineCase of ENGINES) {
    const { name, engine, canBeOnly, canTrust } = engineCase;
    const startInstalled = async (
      test: AfterTest,
      { mirror, config }: Scene,
      ...args: readonly string[]
    ): Promise<Engine> => {
      const clients = await InstalledClients.create(test, config);
      if (engineCase.before !== undefined) {
        await clients.write(...engineCase.before);
      }
      await clients.install(engine, "--address", mirror.host, ...args);
      const programs = clients.programs(engineCase.programs);
      return engineCase.start(test, programs);
    };
    const pullsBoth = async (client: Engine, { mirror }: Scene) => {
      for (const reference of [
        "docker.io/library/bb:1",
        engineCase.ofQuay(mirror.host),
      ]) {
        await client.pull(reference);
        if (!engineCase.canRun) continue;
        const output = await client.run(reference, PAYLOAD_COMMAND);
        assert.equal(output, `${PAYLOAD_SHA256}  /payload.bin\n`);
      }
    };

    void it(`lets ${name} pull and run images of two registries over plain HTTP`, async (test) => {
      await pullsBoth(await startInstalled(test, plain), plain);
    });

    if (canTrust) {
      void it(`lets ${name} trust the mirror's authority`, async (test) => {
        await pullsBoth(await startInstalled(test, secured), secured);
      });
    }

    if (canBeOnly) {
      void it(`keeps ${name} from asking the registry itself with --only`, async (test) => {
        const client = await startInstalled(test, secured, "--only");
        await pullsBoth(client, secured);
        // Of two --address the last one counts; nothing listens at port 1.
        const nowhere = ["--address", `${hostOf(secured)}:1`];
        const askedFor = async (
          ...args: readonly string[]
        ): Promise<string> => {
          const lost = await startInstalled(test, plain, ...nowhere, ...args);
          const refused = await refusal(lost.pull("docker.io/library/bb:1"));
          // containerd 2 pulls in the daemon, which logs each host that it tries.
          return refused + (lost instanceof Containerd ? lost.log : "");
        };
        const only = await askedFor("--only");
        assert.match(only, /connection refused/);
        assert.doesNotMatch(only, FALL_BACK);
        // podman repeats its attempts for ten seconds.
        if (engine === "containerd") assert.match(await askedFor(), FALL_BACK);
      });
    }
  }
});

/** Docker Hub without a host name of its own. */
const HUB_ALONE = { "docker.io": {} };

/** A mirror of Docker Hub whose default registry is hosted, beside one with this name. */
async function startHosting(
  test: AfterTest,
  hub: RealRegistry,
  address: string,
  name: string,
): Promise<Scene> {
  const config = {
    listen: `${address}:0`,
    upstreams: {
      "docker.io": { endpoints: [hub.origin], hostnames: ["hub.test"] },
    },
    hosted: {
      local: { default: true },
      [name]: { anonymousPush: "anywhere" },
    },
  };
  return { mirror: await ChildMirror.start(test, { config }), config };
}

function hostOf({ mirror }: Scene): string {
  return new URL(mirror.origin).hostname;
}
