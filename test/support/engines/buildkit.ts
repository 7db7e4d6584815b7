import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { cachedFolder, GO_FOLDER } from "../cached-tool.ts";
import { Child } from "../child-process.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";
import { commandLine, type Programs, runProgram } from "./programs.ts";

const MODULE = "github.com/moby/buildkit";
const VERSION = "v0.34.2";
const COMMANDS = ["buildkitd", "buildctl"];

/** Covers the download of modules and a compilation on two busy cores. */
const BUILD_TIMEOUT_MS = 20 * 60_000;
const START_TIMEOUT_MS = 30_000;

/**
 * Builds the two programs of BuildKit, which Debian does not have, and keeps them between runs. They
 * are built as dependencies of a module of their own, since `go install` rejects modules with
 * exclusions.
 *
 * @returns their folder
 */
export async function fetchBuildkit(): Promise<string> {
  return cachedFolder(`buildkit-${VERSION}`, async (folder) => {
    const source = join(folder, "source");
    await mkdir(source);
    await writeFile(
      join(source, "go.mod"),
      `module tools\n\ngo 1.24\n\nrequire ${MODULE} ${VERSION}\n`,
    );
    const programs = COMMANDS.map((name) => `${MODULE}/cmd/${name}`);
    await writeFile(
      join(source, "tools.go"),
      `package tools\n\n${programs.map((path) => `import _ "${path}"\n`).join("")}`,
    );
    const options = {
      cwd: source,
      env: {
        GOFLAGS: "-buildvcs=false",
        PATH: [process.env["PATH"], GO_FOLDER].join(delimiter),
      },
      timeoutMs: BUILD_TIMEOUT_MS,
    };
    await runCommand("go", ["mod", "tidy"], options);
    await runCommand("go", ["build", "-o", `${folder}/`, ...programs], options);
    await rm(source, { recursive: true });
  });
}

/** buildkitd with the configuration of the system. */
export class Buildkit {
  readonly #dir: string;
  readonly #folder: string;
  readonly #programs: Programs;

  private constructor(dir: string, folder: string, programs: Programs) {
    this.#dir = dir;
    this.#folder = folder;
    this.#programs = programs;
  }

  static async start(test: AfterTest, programs: Programs): Promise<Buildkit> {
    const folder = await fetchBuildkit();
    const dir = await tempDir(test, "buildkit-");
    const buildkit = new Buildkit(dir, folder, programs);
    const [command, args] = commandLine(programs, join(folder, "buildkitd"), [
      `--root=${join(dir, "root")}`,
      `--addr=${buildkit.#address}`,
      "--containerd-worker=false",
      "--oci-worker=true",
      "--oci-worker-snapshotter=native",
    ]);
    const child = new Child(test, { command, args });
    releaseAfter(test, async () => {
      if (child.isRunning) await child.terminate(20_000);
    });
    await child.line(
      (line) => line.includes("running server on") || undefined,
      START_TIMEOUT_MS,
    );
    return buildkit;
  }

  /** Copies a file out of each image. @returns the digest of each copy, in hex */
  async copyOut(
    references: readonly string[],
    path: string,
  ): Promise<readonly string[]> {
    const context = join(this.#dir, "context");
    const out = join(this.#dir, "out");
    await mkdir(context, { recursive: true });
    const lines = [
      ...references.map(
        (reference, index) => `FROM ${reference} AS from-${index}`,
      ),
      "FROM scratch",
      ...references.map(
        (_, index) => `COPY --from=from-${index} ${path} /${index}`,
      ),
    ];
    await writeFile(join(context, "Dockerfile"), `${lines.join("\n")}\n`);
    await runProgram(
      this.#programs,
      join(this.#folder, "buildctl"),
      [
        `--addr=${this.#address}`,
        "build",
        "--progress=plain",
        "--frontend=dockerfile.v0",
        `--local=context=${context}`,
        `--local=dockerfile=${context}`,
        `--output=type=local,dest=${out}`,
      ],
      // No log-in of the user.
      { env: { DOCKER_CONFIG: this.#dir } },
    );
    const copies = references.map(async (_, index) =>
      readFile(join(out, String(index))),
    );
    return (await Promise.all(copies)).map((bytes) =>
      createHash("sha256").update(bytes).digest("hex"),
    );
  }

  get #address(): string {
    return `unix://${join(this.#dir, "buildkit.sock")}`;
  }
}

if (import.meta.main) await fetchBuildkit();
