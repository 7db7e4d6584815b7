import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { describe, it } from "node:test";
import type { MirrorReport } from "../../../src/cli/status/mirror-report.ts";
import { runStatus } from "../../../src/cli/status/status.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { CollectedOutput } from "../../support/collected-output.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

interface Scene {
  readonly mirror: TestMirror;
  readonly status: (
    options?: { readonly json?: boolean; readonly watch?: boolean },
    stdout?: Writable,
  ) => Promise<{ readonly code: number; readonly stderr: string }>;
}

async function setUp(test: AfterTest): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  const image = buildImage({ seed: "one", layers: [5_000] });
  upstream.content.addImage("library/app", image, "1");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  await pullImage(mirror, "library/app", "1");
  await pullImage(mirror, "library/app", "1");
  const configFile = join(await tempDir(test), "entrepot.yaml");
  await writeFile(
    configFile,
    JSON.stringify({
      operator: { listen: new URL(mirror.operatorOrigin).host },
      storage: { root: mirror.root },
    }),
  );
  const status: Scene["status"] = async (
    { json = false, watch = false } = {},
    stdout = new CollectedOutput(),
  ) => {
    const stderr = new CollectedOutput();
    const stdin = new PassThrough();
    const io = { env: {}, cwd: "/", stdin, stdout, stderr };
    const options = { io, configFile, json, watch, watchMs: 10 };
    return { code: await runStatus(options), stderr: stderr.text };
  };
  return { mirror, status };
}

/** An output whose reader leaves after a chunk. */
class LeavingReader extends Writable {
  readonly chunks: string[] = [];
  readonly #isLast: (count: number, chunk: string) => boolean;
  #hasLeft = false;

  constructor(isLast: (count: number, chunk: string) => boolean) {
    super();
    this.#isLast = isLast;
  }

  override _write(
    bytes: Buffer,
    _encoding: BufferEncoding,
    done: (error?: Error) => void,
  ): void {
    if (this.#hasLeft) {
      done(Object.assign(new Error("EPIPE"), { code: "EPIPE" }));
      return;
    }
    const chunk = bytes.toString();
    this.#hasLeft = this.#isLast(this.chunks.push(chunk), chunk);
    done();
  }
}

void describe("entrepot status", () => {
  void it("shows what a running mirror did, and says that a stopped one does not answer", async (test) => {
    const { mirror, status } = await setUp(test);
    const text = new CollectedOutput();
    assert.deepEqual(await status({}, text), { code: 0, stderr: "" });
    assert.match(text.text, /^entrepot \d.*, ready\n\nhits +62\.5 % of /);
    assert.match(text.text, /\nregistry\.example +up +closed +- +-\n/);
    const json = new CollectedOutput();
    assert.deepEqual(await status({ json: true }, json), {
      code: 0,
      stderr: "",
    });
    const report = JSON.parse(json.text) as MirrorReport;
    assert.equal(report.storage.root, mirror.root);
    assert.equal(report.cache.hitRatio, 0.625);
    assert.ok(report.cache.savedBytes > 0);
    assert.equal(report.upstreams[0]?.endpoints[0]?.breaker, "closed");

    await mirror.close();
    const { code, stderr } = await status();
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^entrepot: no mirror with this storage root answers at 127\.0\.0\.1:\d+, .*; 'entrepot serve' starts the mirror\n$/,
    );
  });

  void it("prints a line for each report with --watch, until its reader leaves", async (test) => {
    const { status } = await setUp(test);
    const lines = new LeavingReader((count) => count === 3);
    assert.equal((await status({ watch: true }, lines)).code, 0);
    assert.equal(lines.chunks.length, 3);
    for (const line of lines.chunks) {
      assert.match(
        line,
        /^\d{4}-\d\d-\d\dT[\d:.]+Z  hits 62\.5 %; saved .+; upstreams up\n$/,
      );
    }
    const documents = new LeavingReader((count) => count === 2);
    await status({ watch: true, json: true }, documents);
    for (const line of documents.chunks) {
      assert.match(line, /^\{.*\}\n$/);
      JSON.parse(line);
    }
  });

  void it("redraws a terminal with --watch, within its rows, and shows that the mirror has stopped", async (test) => {
    const { mirror, status } = await setUp(test);
    const closing: Promise<void>[] = [];
    const screen = Object.assign(
      new LeavingReader((count, chunk) => {
        if (count === 2) closing.push(mirror.close());
        return chunk.includes("no mirror with this");
      }),
      { isTTY: true, columns: 60, rows: 6 },
    );
    assert.equal((await status({ watch: true }, screen)).code, 0);
    await Promise.all(closing);
    const [clear, drawn = ""] = screen.chunks;
    const stopped = screen.chunks.at(-1) ?? "";
    assert.equal(clear, "\u001B[2J");
    assert.ok(drawn.startsWith("\u001B[Hentrepot "), drawn);
    assert.ok(drawn.endsWith("\u001B[K\n\u001B[J"), drawn);
    assert.equal(drawn.split("\n").length, 6);
    assert.ok(
      stopped.startsWith(
        "\u001B[Hno mirror with this storage root answers at ",
      ),
      stopped,
    );
    assert.ok(stopped.endsWith("\u001B[K\n\u001B[J"), stopped);
    assert.equal(stopped.split("\n").length, 2);
  });
});
