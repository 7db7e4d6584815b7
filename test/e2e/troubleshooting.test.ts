import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { htpasswdText } from "../support/access.ts";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { createCertificateAuthority } from "../support/certificate-authority.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { type Engine, requireCommands } from "../support/engines/engine.ts";
import { InstalledClients } from "../support/engines/installed-clients.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { takeOwnAddress } from "../support/engines/own-address.ts";
import { Podman } from "../support/engines/podman.ts";
import { INSTALLED, type Programs } from "../support/engines/programs.ts";
import { buildImage, buildMultiArch } from "../support/image-builder.ts";
import { writeShellArchive } from "../support/engines/shell-archive.ts";
import { refusal } from "../support/run-command.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";
import { Tmpfs } from "../support/tmpfs.ts";
import { readEngineMessages } from "../support/troubleshooting.ts";

await requireCommands(["dockerd", "docker", "containerd", "ctr", "podman"]);
const newer = await fetchNewerClients();
const messages = await readEngineMessages();

interface EngineCase {
  readonly kind: "docker" | "podman" | "containerd";
  readonly programs: Programs;
  readonly start: (test: AfterTest, programs: Programs) => Promise<Engine>;
}

const DAEMON_JSON = "/etc/docker/daemon.json";

function dockerd(programs: Programs, hasContainerdStore: boolean): EngineCase {
  const options = { hasContainerdStore, configFile: DAEMON_JSON };
  return {
    kind: "docker",
    programs,
    start: (test, installed) =>
      Dockerd.start(test, undefined, { ...options, programs: installed }),
  };
}

function containerd(programs: Programs): EngineCase {
  return {
    kind: "containerd",
    programs,
    start: (test, installed) =>
      Containerd.startInstalled(test, "/etc/containerd/certs.d", installed),
  };
}

/** By their names in the page. */
const ENGINES: Readonly<Record<string, EngineCase>> = {
  "Docker 20.10": dockerd(INSTALLED, false),
  "Docker 28": dockerd(newer, true),
  "Podman 5": {
    kind: "podman",
    programs: newer,
    start: (test, installed) => Podman.start(test, undefined, installed),
  },
  "containerd 1.6": containerd(INSTALLED),
  "containerd 2.1": containerd(newer),
};

interface Scene {
  readonly mirror: ChildMirror;
  readonly config: Readonly<Record<string, unknown>>;
}

interface Scenes {
  readonly plain: Scene;
  readonly secured: Scene;
  readonly guarded: Scene;
}

/** What an engine is set up for, and what it pulls. */
type Cause = (scenes: Scenes) => {
  /** Absent: an engine without a set-up. */
  readonly setUp?: { readonly scene: Scene; readonly address?: string };
  readonly reference: string;
};

/** A push, not a pull. */
const FULL_DISK = "no-space-left-on-device";

/** By the anchors of the page's sections. */
const CAUSES: Readonly<Record<string, Cause>> = {
  "x509-certificate-signed-by-unknown-authority": ({ secured }) => ({
    reference: `${secured.mirror.host}/docker.io/library/app:1`,
  }),
  "server-gave-http-response-to-https-client": ({ plain }) => ({
    reference: `${plain.mirror.host}/docker.io/library/app:1`,
  }),
  "400-bad-request-from-a-mirror-with-tls": ({ plain, secured }) => ({
    setUp: { scene: plain, address: `http://${secured.mirror.host}` },
    reference: "docker.io/library/app:1",
  }),
  "pulls-bypass-the-mirror": ({ plain }) => ({
    setUp: { scene: plain },
    reference: "docker.io/library/no:1",
  }),
  "not-found-manifest-unknown-name-unknown": (scenes) =>
    byOwnName(scenes.plain, "docker.io/library/no:1"),
  "not-found-manifest-unknown-name-unknown-2": (scenes) =>
    byOwnName(scenes.plain, "ghcr.io/library/app:1"),
  "unauthorized-no-basic-auth-credentials": (scenes) =>
    byOwnName(scenes.guarded, "docker.io/library/app:1"),
  "denied-403": (scenes) => byOwnName(scenes.plain, "denied.corp/app:1"),
  "toomanyrequests-429": (scenes) =>
    byOwnName(scenes.plain, "limited.corp/app:1"),
  "unexpected-eof-digest-errors": (scenes) =>
    byOwnName(scenes.plain, "wrong.corp/app:1"),
  "a-platform-is-missing": (scenes) =>
    byOwnName(scenes.plain, "docker.io/library/other:1"),
};

function byOwnName(scene: Scene, name: string): ReturnType<Cause> {
  return { setUp: { scene }, reference: `${scene.mirror.host}/${name}` };
}

void describe("the trouble-shooting page", () => {
  const suite = afterSuite();
  let scenes: Scenes;

  before(async () => {
    scenes = await startScenes(suite);
  });

  void it("has messages of every symptom and engine", () => {
    assert.deepEqual(
      [...new Set(messages.map(({ symptom }) => symptom))],
      [...Object.keys(CAUSES), FULL_DISK],
    );
    assert.ok(messages.every(({ engine }) => engine in ENGINES));
    assert.ok(messages.length > 35);
  });

  for (const [name, engineCase] of Object.entries(ENGINES)) {
    void it(`quotes what ${name} prints`, async (test) => {
      const wanted = messages.filter(
        ({ engine, symptom }) => engine === name && symptom !== FULL_DISK,
      );
      const started = new Map<string, Engine>();
      for (const { symptom, message } of wanted) {
        const cause = CAUSES[symptom]?.(scenes);
        assert.ok(cause !== undefined, symptom);
        const { scene, address = scene?.mirror.host ?? "" } = cause.setUp ?? {};
        const engine =
          started.get(address) ??
          (await startEngine(test, engineCase, scene, address));
        started.set(address, engine);
        const printed = await refusal(engine.pull(cause.reference));
        assert.ok(printed.includes(message), `${symptom}: ${printed}`);
      }
    });
  }

  void it("quotes what a push to a full disk prints", async (test) => {
    const disk = await Tmpfs.mount(test, "size=4m");
    const { host } = await ChildMirror.start(test, {
      config: { storage: { root: disk.path }, upstreams: {} },
    });
    const archive = await writeShellArchive(test, 6_000_000);
    const reference = `${host}/local/app:1`;
    const docker = await Dockerd.start(test, undefined, {
      programs: newer,
      hasContainerdStore: true,
    });
    await docker.docker("import", archive, reference);
    const podman = await Podman.start(test, { host }, newer);
    await podman.podman("import", archive, reference);
    const printed: Readonly<Record<string, string>> = {
      "Docker 28": await refusal(docker.docker("push", reference)),
      "Podman 5": await refusal(podman.podman("push", reference)),
    };
    const wanted = messages.filter(({ symptom }) => symptom === FULL_DISK);
    assert.equal(wanted.length, 2);
    for (const { engine, message } of wanted) {
      assert.ok(printed[engine]?.includes(message), `${engine}: ${message}`);
    }
  });
});

async function startEngine(
  test: AfterTest,
  { kind, programs, start }: EngineCase,
  scene: Scene | undefined,
  address: string,
): Promise<Engine> {
  const clients = await InstalledClients.create(test, scene?.config ?? {});
  if (kind === "docker") {
    const features = { "containerd-snapshotter": programs === newer };
    await clients.write(DAEMON_JSON, JSON.stringify({ features }));
  }
  if (scene !== undefined) {
    await clients.install(kind, "--address", address);
  }
  return start(test, clients.programs(programs));
}

/** Registries of which each one makes one kind of trouble, and three mirrors of them. */
async function startScenes(suite: AfterTest): Promise<Scenes> {
  const [hub, limited, wrong] = await Promise.all(
    ["hub", "limited", "wrong"].map(() => ScriptedUpstream.start(suite)),
  );
  assert.ok(hub && limited && wrong);
  const denied = await ScriptedUpstream.start(suite, {
    auth: { scheme: "basic", users: { mirror: "secret" } },
  });
  const image = buildImage({ seed: "app", layers: [300_000] });
  hub.content.addImage("library/app", image, "1");
  const platforms = [{ os: "linux", architecture: "s390x" }];
  hub.content.addIndex(
    "library/other",
    buildMultiArch({ seed: "other", platforms }),
    "1",
  );
  for (const one of [limited, wrong, denied]) {
    one.content.addImage("app", image, "1");
  }
  limited.when({}, { status: 429 });
  wrong.when({ kind: "blob" }, { flip: "middle" });
  denied.deny("app");
  const upstreams = {
    "docker.io": { default: true, endpoints: [hub.origin] },
    "limited.corp": { endpoints: [limited.origin] },
    "wrong.corp": { endpoints: [wrong.origin] },
    "denied.corp": {
      endpoints: [denied.origin],
      credentials: { username: "mirror", password: "secret" },
      access: "shared",
    },
  };
  const address = await takeOwnAddress(suite);
  const authority = createCertificateAuthority();
  const pair = authority.issue({ hosts: [address] });
  const start = async (
    more: (
      write: (name: string, text: string) => Promise<string>,
    ) => Promise<Readonly<Record<string, unknown>>>,
  ): Promise<Scene> => {
    const dir = await tempDir(suite, "mirror-");
    const write = async (name: string, text: string): Promise<string> => {
      await writeFile(join(dir, name), text, { mode: 0o600 });
      return join(dir, name);
    };
    const config = {
      listen: `${address}:0`,
      upstreams,
      ...(await more(write)),
    };
    return { config, mirror: await ChildMirror.start(suite, { dir, config }) };
  };
  const withTls = async (
    write: (name: string, text: string) => Promise<string>,
  ) => ({
    tls: {
      certificateFile: await write("tls.crt", pair.cert + authority.cert),
      keyFile: await write("tls.key", pair.key),
    },
  });
  return {
    plain: await start(async () => ({})),
    secured: await start(withTls),
    guarded: await start(async (write) => ({
      ...(await withTls(write)),
      access: {
        htpasswdFile: await write("htpasswd", htpasswdText({ alice: "right" })),
        anonymous: "none",
      },
    })),
  };
}
