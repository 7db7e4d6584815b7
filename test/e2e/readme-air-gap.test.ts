import assert from "node:assert/strict";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { before, describe, it } from "node:test";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import {
  PAYLOAD_COMMAND,
  PAYLOAD_SHA256,
  publishBusyboxImages,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { INSTALLED } from "../support/engines/programs.ts";
import { readmeBlocks } from "../support/readme-blocks.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { refusal, runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

const MAIN = join(import.meta.dirname, "../../src/main.ts");
const PLATFORM = `linux/${process.arch === "arm64" ? "arm64" : "amd64"}`;

/** Images of the test in place of those that the README names. */
const NAMES: readonly (readonly [string, string])[] = [
  ["quay.io/prometheus/prometheus:v3.5.0", "quay.io/library/zstd:1"],
  ["alpine:3", "bb:1"],
  ["linux/amd64", PLATFORM],
];

/** A folder in which the README's lines are run as they are. */
class Shell {
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async create(test: AfterTest): Promise<Shell> {
    const shell = new Shell(await tempDir(test, "readme-"));
    await mkdir(join(shell.dir, "bin"));
    const program = join(shell.dir, "bin/entrepot");
    await writeFile(
      program,
      `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`,
    );
    await chmod(program, 0o755);
    await mkdir(join(shell.dir, "deploy/lists"), { recursive: true });
    await shell.write(
      "deploy/lists/images.txt",
      "# as in the README\nbb:1\nquay.io/library/zstd:1\n",
    );
    await shell.write(
      "deploy/lists/sync.yaml",
      'docker.io:\n  images-by-semver:\n    library/multi: ">= 1"\n',
    );
    return shell;
  }

  async write(name: string, text: string): Promise<void> {
    await writeFile(join(this.dir, name), text);
  }

  /** Runs a line for a mirror. @returns its standard output */
  async run(mirror: ChildMirror, line: string): Promise<string> {
    const adapted = NAMES.reduce(
      (text, [from, to]) => text.replaceAll(from, to),
      line,
    );
    const { stdout } = await runCommand("sh", ["-c", adapted], {
      cwd: this.dir,
      env: {
        PATH: [join(this.dir, "bin"), process.env["PATH"]].join(delimiter),
        ENTREPOT_CONFIG: mirror.configFile,
        // The file says port 0.
        ENTREPOT_LISTEN: mirror.host,
        ENTREPOT_OPERATOR__LISTEN: new URL(mirror.operatorOrigin).host,
      },
    });
    return stdout;
  }
}

void describe("the README's commands for images in advance", () => {
  const suite = afterSuite();
  let upstream: RealRegistry;

  before(async () => {
    await requireCommands(["dockerd", "containerd", "ctr", "docker-registry"]);
    upstream = await RealRegistry.start(suite);
    await publishBusyboxImages(suite, upstream);
  });

  const start = async (
    test: AfterTest,
    config: Readonly<Record<string, unknown>>,
  ): Promise<ChildMirror> =>
    ChildMirror.start(test, {
      config: {
        ...config,
        upstreams: {
          "docker.io": { default: true, endpoints: [upstream.origin] },
          "quay.io": { endpoints: [upstream.origin] },
        },
      },
    });

  void it("fetch the images of a warm-up", async (test) => {
    const mirror = await start(test, {});
    const shell = await Shell.create(test);
    const [lines = []] = await readmeBlocks("Warm-up");
    assert.equal(lines.length, 5);
    for (const line of lines) await shell.run(mirror, line);
    const jobs = await shell.run(mirror, "entrepot jobs");
    assert.match(jobs, /warm/);
    const stored = await shell.run(mirror, "entrepot ls");
    assert.match(stored, /docker\.io\/library\/bb:1/);
    assert.match(stored, /quay\.io\/library\/zstd:1/);
  });

  void it("bring images to an air-gapped site, and then what was missing there", async (test) => {
    const connected = await start(test, {});
    const offline = await start(test, { offline: true });
    const shell = await Shell.create(test);
    const root = join(shell.dir, "root");
    const [first, second, third, fourth, fifth, ...others] =
      await readmeBlocks("An air-gapped site");
    assert.ok(first && second && third && fourth && fifth);
    assert.deepEqual(others, []);

    for (const line of first) await shell.run(connected, line);
    for (const line of second) {
      await shell.run(
        offline,
        line.replace(/--install$/, `--install --root ${root}`),
      );
    }
    const engine = await Containerd.startInstalled(
      test,
      join(root, "etc/containerd/certs.d"),
      INSTALLED,
    );
    const runs = async (reference: string): Promise<void> => {
      await engine.pull(reference);
      const output = await engine.run(reference, PAYLOAD_COMMAND);
      assert.equal(output, `${PAYLOAD_SHA256}  /payload.bin\n`);
    };
    await runs("docker.io/library/bb:1");
    await runs("quay.io/library/zstd:1");
    const wished = "docker.io/library/multi:1";
    assert.match(await refusal(engine.pull(wished)), /not found/);

    for (const line of third) await shell.run(offline, line);
    const wishes = await readFile(join(shell.dir, "wishes.txt"), "utf8");
    assert.match(wishes, /^(?:docker\.io\/library\/)?multi:1$/m);
    for (const line of fourth) await shell.run(connected, line);
    const members = async (bundle: string): Promise<readonly string[]> => {
      const { stdout } = await runCommand("tar", ["-tf", bundle], {
        cwd: shell.dir,
      });
      return stdout.split("\n").filter((name) => name.startsWith("blobs/"));
    };
    const january = await members("january.tar");
    const february = await members("february.tar");
    assert.ok(january.length > 4 && february.length > 2);
    assert.deepEqual(
      february.filter((name) => january.includes(name)),
      [],
    );
    for (const line of fifth) await shell.run(offline, line);
    await runs(wished);
    assert.equal(await shell.run(offline, "entrepot wishes --format list"), "");
  });

  void it("print and install the set-up of engines", async (test) => {
    const mirror = await start(test, {});
    const shell = await Shell.create(test);
    const [lines = []] = await readmeBlocks("Point an engine at it");
    assert.equal(lines.length, 3);
    const outputs = [];
    for (const line of lines) {
      outputs.push(
        await shell.run(
          mirror,
          line.replace(/--install$/, "--install --root root"),
        ),
      );
    }
    const [docker = "", containerd = "", podman = ""] = outputs;
    assert.ok(docker.includes(`"registry-mirrors": ["http://${mirror.host}"]`));
    assert.match(containerd, /^\+\[host\."http:\/\/mirror\.internal:5000"\]$/m);
    assert.match(podman, /^location = "127\.0\.0\.1:\d+\/quay\.io"$/m);
    assert.doesNotMatch(podman, /registry\.mirror/);
  });
});
