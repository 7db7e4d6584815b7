import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { runCommandLine } from "../../../../src/cli/command-line.ts";
import { readBundleBase } from "../../../../src/cli/content/export/read-base.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import {
  blobsOf,
  readBundle,
  type ReadBundle,
} from "../../../support/bundles.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";
import { buildImage, buildMultiArch } from "../../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../../support/mirror-harness.ts";
import { pullImage } from "../../../support/pull-image.ts";
import { runCommand } from "../../../support/run-command.ts";
import { ScriptedUpstream } from "../../../support/scripted-upstream.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const APP = "registry.example/library/app";
const first = buildImage({ seed: "first", layers: [5_000, 900_000] });
const second = buildImage({ seed: "second", layers: [...first.layers, 6_000] });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });

interface Ended {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Keeps bytes that are not text. */
class CollectedBytes extends Writable {
  readonly isTTY: boolean;
  readonly #parts: Buffer[] = [];

  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#parts.push(Buffer.from(chunk));
    done();
  }
}

interface Scene {
  readonly mirror: TestMirror;
  readonly cwd: string;
  readonly run: (
    args: readonly string[],
    options?: {
      readonly stdin?: string;
      readonly isTTY?: boolean;
      readonly isErrorTTY?: boolean;
    },
  ) => Promise<Ended>;
  readonly read: (name: string) => Promise<ReadBundle>;
}

async function setUp(test: AfterTest): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", first, "1");
  upstream.content.addImage("library/app", second, "2");
  upstream.content.addIndex("library/app", multi, "multi");
  const mirror = await startMirror(test, [
    upstreamOf(upstream, { libraryPrefix: true }),
  ]);
  for (const each of ["1", "2", "multi"]) {
    await pullImage(mirror, "library/app", each);
  }
  await mirror.settled();
  const cwd = await tempDir(test);
  const { host } = new URL(mirror.operatorOrigin);
  await writeFile(
    join(cwd, "entrepot.yaml"),
    JSON.stringify({
      operator: { listen: host },
      storage: { root: mirror.root },
      eviction: { maxSize: "1TiB", minFree: "0B", maxIdle: "forever" },
      upstreams: {
        "registry.example": {
          endpoints: [upstream.origin],
          default: true,
          libraryPrefix: true,
        },
      },
    }),
  );
  return {
    mirror,
    cwd,
    run: async (
      args,
      { stdin = "", isTTY = false, isErrorTTY = false } = {},
    ) => {
      const stdout = new CollectedBytes(isTTY);
      const stderr = Object.assign(new CollectedOutput(), {
        isTTY: isErrorTTY,
      });
      const code = await runCommandLine(["export", ...args], {
        env: { ENTREPOT_CONFIG: join(cwd, "entrepot.yaml") },
        cwd,
        stdin: Readable.from([stdin]),
        stdout,
        stderr,
      });
      return { code, stdout: stdout.bytes, stderr: stderr.text };
    },
    read: (name) => readBundle(createReadStream(join(cwd, name))),
  };
}

/** The files of a folder bundle, by their paths. */
async function readFolder(
  folder: string,
): Promise<ReadonlyMap<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const entry of await readdir(folder, {
    recursive: true,
    withFileTypes: true,
  })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(folder.length + 1), await readFile(path));
  }
  return files;
}

void describe("entrepot export", () => {
  for (const where of ["a running mirror", "the storage root"] as const) {
    void it(`writes the same archive, folder and stream from ${where}`, async (test) => {
      const { mirror, cwd, run, read } = await setUp(test);
      const names = [`${APP}:1`, `${APP}:2`];
      const running = await run(["app:1", "app:2", "-o", "running.tar"]);
      assert.deepEqual([running.code, running.stderr], [0, ""]);
      if (where === "the storage root") await mirror.close();
      const { code, stdout } = await run(["app:2", "app:1", "-o", "f.tar"]);
      assert.equal(code, 0);
      assert.equal(
        stdout.toString(),
        "exported 2 images to f.tar: 7 blobs, 892 KiB\n",
      );
      const archive = await read("f.tar");
      assert.deepEqual(
        archive.index.manifests.map(
          ({ annotations }) => annotations?.["io.containerd.image.name"],
        ),
        names,
      );
      const running2 = await readFile(join(cwd, "running.tar"));
      assert(archive.bytes.equals(running2));
      assert.equal((await run(["app:9*", "-o", "f"])).code, 1);
      await mkdir(join(cwd, "f"));
      assert.equal((await run(["app:1", "app:2", "-o", "f/"])).code, 0);
      assert.deepEqual(await readFolder(join(cwd, "f")), archive.members);
      const streamed = await run(["app:1", "app:2", "-o", "-", "--json"]);
      assert(streamed.stdout.equals(archive.bytes));
      const index = archive.members.get("index.json") ?? Buffer.of();
      assert.deepEqual(JSON.parse(streamed.stderr), {
        output: "-",
        images: 2,
        blobs: 7,
        bytes: blobsOf(archive).length === 7 ? sizeOf(archive) : 0,
        omittedBlobs: 0,
        omittedBytes: 0,
        indexDigest: digestOf(index),
      });
      assert.deepEqual((await readdir(cwd)).toSorted(), [
        "entrepot.yaml",
        "f",
        "f.tar",
        "running.tar",
      ]);
    });

    void it(`leaves nothing of a bundle with a damaged blob of ${where}`, async (test) => {
      const { mirror, cwd, run } = await setUp(test);
      const [, layer] = first.layers;
      assert(layer !== undefined);
      const wrong = layer.bytes();
      wrong[0] = (wrong[0] ?? 0) ^ 1;
      await writeFile(mirror.blobFile(layer.digest), wrong);
      if (where === "the storage root") await mirror.close();
      await writeFile(join(cwd, "old.tar"), "the earlier one");
      for (const output of ["old.tar", "folder"]) {
        const { code, stderr, stdout } = await run(["app:1", "-o", output]);
        assert.deepEqual([code, stdout.toString()], [1, ""], output);
        assert.match(
          stderr,
          where === "the storage root"
            ? /sha256:[0-9a-f]{64} is damaged: .*scrub --repair'\n$/
            : /^entrepot: .+\n$/,
        );
      }
      assert.deepEqual((await readdir(cwd)).toSorted(), [
        "entrepot.yaml",
        "old.tar",
      ]);
      const old = await readFile(join(cwd, "old.tar"), "utf8");
      assert.equal(old, "the earlier one");
    });

    void it(`names what cannot be exported from ${where}`, async (test) => {
      const { mirror, run } = await setUp(test);
      if (where === "the storage root") await mirror.close();
      const { code, stderr } = await run([
        "app:1",
        "app:3",
        "quay.io/**",
        "-o",
        "f.tar",
      ]);
      assert.equal(code, 1);
      assert.equal(
        stderr,
        [
          "entrepot: no image matches quay.io/**",
          `entrepot: ${APP}:3 is not stored; run 'entrepot warm ${APP}:3'`,
          "",
        ].join("\n"),
      );
    });
  }

  void it("selects platforms and the images of lists", async (test) => {
    const { cwd, run, read } = await setUp(test);
    await writeFile(join(cwd, "list.txt"), "app:1\napp:multi\n");
    const { code, stderr } = await run(
      [
        "--list",
        "list.txt",
        "--list",
        "-",
        "app:1",
        "--platform",
        "linux/amd64",
        "-o",
        "f.tar",
      ],
      {
        stdin:
          'registry.example:\n  images-by-tag-regex:\n    library/app: "^2"\n',
      },
    );
    assert.deepEqual([code, stderr], [0, ""]);
    const { index } = await read("f.tar");
    assert.deepEqual(
      index.manifests.map(({ annotations }) => [
        annotations?.["org.opencontainers.image.ref.name"],
        annotations?.["io.entrepot.bundle.manifests"],
      ]),
      [
        [`${APP}:1`, undefined],
        [`${APP}:2`, undefined],
        [`${APP}:multi`, multi.images[0]?.manifest.digest],
      ],
    );
  });

  void it("leaves out what an earlier bundle holds, in each of its forms", async (test) => {
    const { cwd, run, read } = await setUp(test);
    assert.equal((await run(["app:1", "-o", "base.tar"])).code, 0);
    assert.equal((await run(["app:1", "-o", "base"])).code, 0);
    const base = await readFile(join(cwd, "base.tar"));
    await writeFile(join(cwd, "base.tar.gz"), gzipSync(base));
    await writeFile(join(cwd, "base.tar.zst"), zstdCompressSync(base));
    const archives: Buffer[] = [];
    for (const since of [
      "base.tar",
      "base",
      "base/index.json",
      "base.tar.gz",
      "base.tar.zst",
    ]) {
      const { code, stdout, stderr } = await run([
        "app:2",
        "--since",
        since,
        "-o",
        "more.tar",
      ]);
      assert.deepEqual([code, stderr], [0, ""], since);
      assert.match(stdout.toString(), /3 blobs, .*; 2 blobs, .* left out\n$/);
      archives.push((await read("more.tar")).bytes);
    }
    const [one, ...others] = archives;
    for (const other of others) assert(one?.equals(other));
    // The second bundle and what it continues.
    const { stdout } = await run([
      "app:*",
      "--since",
      "more.tar",
      "-o",
      "third.tar",
    ]);
    assert.match(stdout.toString(), /^exported 3 images/);
    const third = await read("third.tar");
    const layers = second.layers.map(({ digest }) => digest);
    assert(blobsOf(third).every((digest) => !layers.includes(digest as never)));
  });

  void it("shows its progress on a terminal, also of a bundle that is piped", async (test) => {
    const { cwd, run } = await setUp(test);
    const archive = join(cwd, "f.tar");
    for (const output of [archive, "-"]) {
      const { code, stderr, stdout } = await run(["app:1", "-o", output], {
        isErrorTTY: true,
      });
      const [before, shown, ...others] = stderr.split("\r\u001B[K");
      assert.deepEqual([code, before], [0, ""]);
      assert.match(shown ?? "", /^\d+ %  .+ of 885 KiB, .+\/s, about .+ left$/);
      const ended = output === "-" ? (others.at(-1) ?? "") : stdout.toString();
      const target = output === "-" ? "standard output" : archive;
      assert.match(ended, /^exported 1 image to /);
      assert(ended.includes(` to ${target}: `), ended);
    }
  });

  void it("stops while an earlier bundle is read", async (test) => {
    const { cwd, run } = await setUp(test);
    assert.equal((await run(["app:1", "-o", "base.tar"])).code, 0);
    const stopped = new Error("stopped");
    await assert.rejects(
      readBundleBase("base.tar", cwd, AbortSignal.abort(stopped)),
      stopped,
    );
  });

  void it("writes through a link and into a pipe, and replaces neither", async (test) => {
    const { cwd, run, read } = await setUp(test);
    await mkdir(join(cwd, "disk"));
    await writeFile(join(cwd, "disk/old.tar"), "the earlier one");
    await symlink("disk/old.tar", join(cwd, "link.tar"));
    await runCommand("mkfifo", [join(cwd, "pipe.tar")]);
    assert.equal((await run(["app:1", "-o", "link.tar"])).code, 0);
    const { bytes } = await read("disk/old.tar");
    const [piped, { code }] = await Promise.all([
      buffer(createReadStream(join(cwd, "pipe.tar"))),
      run(["app:1", "-o", "pipe.tar"]),
    ]);
    assert.equal(code, 0);
    assert(piped.equals(bytes));
    assert((await lstat(join(cwd, "link.tar"))).isSymbolicLink());
    assert((await lstat(join(cwd, "pipe.tar"))).isFIFO());
    assert.deepEqual(await readdir(join(cwd, "disk")), ["old.tar"]);
  });

  void it("refuses wrong usage", async (test) => {
    const { cwd, run } = await setUp(test);
    await mkdir(join(cwd, "full/of"), { recursive: true });
    await writeFile(join(cwd, "text"), "text");
    await writeFile(join(cwd, "json"), "{}");
    for (const [args, message] of [
      [["-o", "f.tar"], "got no reference; expected a REF or --list FILE"],
      [
        ["app:1", "-o", "f.tar", "--platform", "linux"],
        "--platform: got linux; expected OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64",
      ],
      [
        ["app:1", "-o", "full"],
        "-o: the folder full is not empty; expected a new or an empty one",
      ],
      [
        ["app:1", "-o", "f.tar.gz"],
        "-o: got f.tar.gz; expected a name that ends in .tar, a folder, or -, as in 'entrepot export … -o - | zstd > f.tar.gz'",
      ],
      [
        ["app:1", "-o", "f.tar", "--since", "gone"],
        "--since: gone: no such file or folder; expected a bundle",
      ],
      [
        ["app:1", "-o", "f.tar", "--since", "text"],
        /^--since: text: the archive /,
      ],
      [
        ["app:1", "-o", "f.tar", "--since", "json"],
        "--since: json: got JSON without manifests; expected an index.json",
      ],
      [
        ["--list", "gone", "-o", "f.tar"],
        /^gone: got .*; expected a readable list of images/,
      ],
      [["app:1"], /required option/],
    ] as const) {
      const { code, stderr } = await run(args);
      const text = stderr.replace(/^entrepot: /, "");
      assert.equal(code, 2, stderr);
      if (typeof message === "string") assert.equal(text, `${message}\n`);
      else assert.match(text.replace(/^error: /, ""), message);
    }
    const terminal = await run(["app:1", "-o", "-"], { isTTY: true });
    assert.deepEqual(
      [terminal.code, terminal.stderr],
      [
        2,
        "entrepot: -o: standard output is a terminal; expected a file or a pipe\n",
      ],
    );
    const failed = await run(["app:1", "-o", "none/such/f.tar"]);
    assert.equal(failed.code, 1);
    assert.match(failed.stderr, /none\/such\/f\.tar: ENOENT/);
    await rm(join(cwd, "full"), { recursive: true });
    assert.deepEqual((await readdir(cwd)).toSorted(), [
      "entrepot.yaml",
      "json",
      "text",
    ]);
  });
});

function sizeOf({ members }: ReadBundle): number {
  return [...members]
    .filter(([path]) => path.startsWith("blobs/"))
    .reduce((sum, [, { length }]) => sum + length, 0);
}
