import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import { runCommandLine } from "../../../src/cli/command-line.ts";
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

async function setUp(test: AfterTest): Promise<{
  readonly mirror: TestMirror;
  readonly complete: (start: string) => Promise<readonly string[]>;
}> {
  const upstream = await ScriptedUpstream.start(test);
  const image = buildImage({ seed: "one", layers: [100] });
  for (const repository of ["library/app", "team/app"]) {
    upstream.content.addImage(repository, image, "1");
  }
  const mirror = await startMirror(test, [
    upstreamOf(upstream, { libraryPrefix: true }),
  ]);
  await pullImage(mirror, "library/app", "1");
  await pullImage(mirror, "team/app", "1");
  const config = join(await tempDir(test), "entrepot.yaml");
  await writeFile(
    config,
    JSON.stringify({
      operator: { listen: new URL(mirror.operatorOrigin).host },
      storage: { root: mirror.root },
      upstreams: { "registry.example": { default: true, libraryPrefix: true } },
    }),
  );
  const complete = async (start: string): Promise<readonly string[]> => {
    const stdout = new CollectedOutput();
    const stderr = new CollectedOutput();
    const io = { env: {}, cwd: "/", stdin: new PassThrough(), stdout, stderr };
    const args = ["completion", "zsh", "--refs", start, "--config", config];
    const code = await runCommandLine(args, io);
    assert.deepEqual([code, stderr.text], [0, ""]);
    return stdout.text.split("\n").slice(0, -1);
  };
  return { mirror, complete };
}

void describe("the references that a shell completes", () => {
  void it("are those of a running mirror, in full and as engines write them", async (test) => {
    const { mirror, complete } = await setUp(test);
    assert.deepEqual(await complete(""), ["app:1", "team/app:1"]);
    assert.deepEqual(await complete("ap"), ["app:1"]);
    assert.deepEqual(await complete("team/app:"), ["team/app:1"]);
    assert.deepEqual(await complete("registry.example/"), [
      "registry.example/library/app:1",
      "registry.example/team/app:1",
    ]);
    assert.deepEqual(await complete("pp"), []);
    assert.deepEqual(await complete("absent"), []);
    await mirror.close();
    assert.deepEqual(await complete("ap"), []);
  });
});
