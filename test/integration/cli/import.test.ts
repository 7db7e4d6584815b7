import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { describe, it } from "node:test";
import { zstdCompressSync } from "node:zlib";
import {
  type ImportCommand,
  runImport,
} from "../../../src/cli/content/import/import.ts";
import type { ImportReport } from "../../../src/images/bundles/bundle.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import {
  bundleMembers,
  tarOf,
  type TestMember,
} from "../../support/bundle-archive.ts";
import { CollectedOutput } from "../../support/collected-output.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startMirror, TestMirror } from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { upstreamConfig } from "../../support/upstream-harness.ts";

const NAME = "registry.example/library/app:1";
const image = buildImage({ seed: "image", layers: [50_000, 6_000] });
const members = bundleMembers({ [NAME]: image });

interface Site {
  readonly folder: string;
  readonly root: string;
  readonly configFile: string;
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Writes a configuration; nothing runs with it unless a test starts it. */
async function makeSite(test: AfterTest, operator: unknown): Promise<Site> {
  const folder = await tempDir(test);
  const root = join(folder, "data");
  const configFile = join(folder, "entrepot.yaml");
  const config = {
    storage: { root },
    operator: { listen: operator },
    upstreams: { "registry.example": {} },
    offline: true,
    eviction: { minFree: "0B" },
  };
  await writeFile(configFile, JSON.stringify(config));
  return { folder, root, configFile };
}

async function run(
  site: Site,
  bundle: string,
  options: Partial<ImportCommand> = {},
): Promise<Ended> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const code = await runImport({
    bundle,
    into: undefined,
    name: undefined,
    isPinned: false,
    configFile: site.configFile,
    json: false,
    signal: new AbortController().signal,
    env: {},
    cwd: site.folder,
    stdin: new PassThrough(),
    stdout,
    stderr,
    ...options,
  });
  return { code, stdout: stdout.text, stderr: stderr.text };
}

async function writeMembers(
  folder: string,
  files: readonly TestMember[],
): Promise<void> {
  for (const { name, bytes } of files) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), bytes);
  }
}

/** Asserts that the image is pulled from a mirror that starts on the storage root. */
async function assertPulled(test: AfterTest, { root }: Site): Promise<void> {
  const mirror = new TestMirror(root, [upstreamConfig([])], { offline: true });
  releaseAfter(test, () => mirror.close());
  await mirror.open();
  await pullImage(mirror, "registry.example/library/app", "1");
}

void describe("entrepot import", () => {
  void it("fills the storage root of a stopped mirror, which it creates", async (test) => {
    const site = await makeSite(test, false);
    await writeFile(join(site.folder, "b.tar"), await tarOf(members));
    const first = await run(site, "b.tar");
    assert.equal(
      first.stdout,
      `${NAME}\nimported 1 image: 4 blobs added, 56 KiB\n`,
    );
    assert.deepEqual([first.code, first.stderr], [0, ""]);
    const second = await run(site, "b.tar", { json: true });
    const report = JSON.parse(second.stdout) as ImportReport;
    assert.deepEqual(report, {
      images: [
        { ref: NAME, digest: image.manifest.digest, absentManifests: 0 },
      ],
      blobs: 0,
      bytes: 0,
    });
    await assertPulled(test, site);
  });

  void it("reads the folder of a layout, and files beside it are ignored", async (test) => {
    const site = await makeSite(test, false);
    const folder = join(site.folder, "layout");
    await writeMembers(folder, [
      ...members,
      { name: "ingest/tmp", bytes: Buffer.from("x") },
      { name: "blobs/sha256/.tmp", bytes: Buffer.from("x") },
    ]);
    const { code, stderr } = await run(site, "layout");
    assert.deepEqual([code, stderr], [0, ""]);
    await assertPulled(test, site);
  });

  void it("reads standard input, also compressed", async (test) => {
    const site = await makeSite(test, false);
    const bytes = zstdCompressSync(await tarOf(members));
    const stdin = Readable.from([bytes], { objectMode: false });
    const { code } = await run(site, "-", { stdin });
    assert.equal(code, 0);
    await assertPulled(test, site);
  });

  void it("streams to a running mirror", async (test) => {
    const mirror = await startMirror(test, [upstreamConfig([])], {
      offline: true,
    });
    const listen = `127.0.0.1:${mirror.operatorPort}`;
    const site = { ...(await makeSite(test, listen)), root: mirror.root };
    await writeFile(
      site.configFile,
      JSON.stringify({
        storage: { root: mirror.root },
        operator: { listen },
        upstreams: { "registry.example": {} },
      }),
    );
    await writeFile(join(site.folder, "b.tar"), await tarOf(members));
    await writeMembers(join(site.folder, "layout"), members);
    const ended = await run(site, "b.tar", { isPinned: true });
    assert.deepEqual([ended.code, ended.stderr], [0, ""]);
    await pullImage(mirror, "registry.example/library/app", "1");
    const again = await run(site, "layout");
    assert.match(again.stdout, /every blob was stored before/);
    const images = await mirror.operate("GET", "/images");
    const [listed] = (images.body as { images: { pinned: boolean }[] }).images;
    assert.equal(listed?.pinned, true);
    const { body } = await mirror.operate("GET", "/jobs");
    const [, job] = (body as { items: { bytesTotal: number }[] }).items;
    assert.equal(job?.bytesTotal, (await tarOf(members)).length);
    // Refused while most of a large body is not sent yet.
    const large = Buffer.concat([
      await tarOf([{ name: "/absolute", bytes: Buffer.from("x") }]),
      Buffer.alloc(30_000_000),
    ]);
    await writeFile(join(site.folder, "bad.tar"), large);
    const refused = await run(site, "bad.tar");
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /^entrepot: member \/absolute: its name is absolute\n$/,
    );
    const wrong = await run(site, "b.tar", { into: "registry.example/x" });
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /^entrepot: --into: got registry.example\/x/);
  });

  void it("explains what it cannot read, and exits with 2", async (test) => {
    const site = await makeSite(test, false);
    await mkdir(join(site.folder, "empty"));
    const terminal = Object.assign(new PassThrough(), { isTTY: true });
    for (const [bundle, reason, stdin] of [
      ["absent.tar", /absent.tar: no such file or folder/, undefined],
      ["empty", /a folder without index.json/, undefined],
      ["-", /got a terminal as standard input/, terminal],
    ] as const) {
      const { code, stderr } = await run(
        site,
        bundle,
        stdin === undefined ? {} : { stdin },
      );
      assert.equal(code, 2);
      assert.match(stderr, reason);
    }
  });

  void it("reports a refused bundle, and leaves nothing", async (test) => {
    const site = await makeSite(test, false);
    const bytes = await tarOf(members);
    await writeFile(join(site.folder, "cut.tar"), bytes.subarray(0, 30_000));
    const { code, stdout, stderr } = await run(site, "cut.tar");
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(
      stderr,
      /^entrepot: the archive ends early, in or after blobs\/sha256\/[0-9a-f]{64}\n$/,
    );
    assert.deepEqual(await readdir(join(site.root, "blobs/sha256")), []);
    const wrong = await run(site, "cut.tar", { name: "no name" });
    assert.equal(wrong.code, 1);
  });

  void it("does not follow links in a folder", async (test) => {
    const site = await makeSite(test, false);
    const folder = join(site.folder, "layout");
    await writeMembers(folder, members);
    const name = "a".repeat(64);
    await symlink("/etc/hostname", join(folder, "blobs/sha256", name));
    const { code, stderr } = await run(site, "layout");
    assert.equal(code, 1);
    assert.match(stderr, /blobs\/sha256\/a+: got a link; expected a file/);
  });

  void it("that is stopped continues where it was", async (test) => {
    const site = await makeSite(test, false);
    const bytes = await tarOf(members);
    const stop = new AbortController();
    const stdin = new PassThrough();
    stdin.write(bytes.subarray(0, bytes.length - 2_000));
    const running = run(site, "-", { stdin, signal: stop.signal });
    const folder = join(site.root, "blobs/sha256");
    const first = image.manifest.digest.slice("sha256:".length);
    while (!existsSync(join(folder, first))) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    stop.abort(new Error("SIGINT"));
    stdin.end(bytes.subarray(bytes.length - 2_000));
    const { code, stderr } = await running;
    assert.equal(code, 1);
    assert.match(stderr, /the import was stopped; run it again to continue/);
    const before = (await readdir(folder)).length;
    assert(before > 0);
    await writeFile(join(site.folder, "b.tar"), bytes);
    const { stdout } = await run(site, "b.tar", { json: true });
    assert.equal((JSON.parse(stdout) as ImportReport).blobs, 4 - before);
    await assertPulled(test, site);
  });
});
