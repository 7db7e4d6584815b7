import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../support/after-test.ts";
import { buildImage, buildMultiArch } from "../support/image-builder.ts";
import { writeMirrorConfig } from "../support/mirror-config.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { runCli } from "../support/run-cli.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const app = buildImage({ seed: "gap-app", layers: [5_000] });
const tool = buildMultiArch({ seed: "gap-tool", layers: [6_000] });

interface Side {
  readonly mirror: TestMirror;
  /** Runs a command that succeeds. @returns its standard output */
  readonly run: (...args: readonly string[]) => Promise<string>;
}

/** A mirror of the same two registries, and its command line. */
async function openSide(
  test: AfterTest,
  registries: readonly ScriptedUpstream[],
  offline: boolean,
): Promise<Side> {
  const [first, second] = registries;
  assert(first !== undefined && second !== undefined);
  const mirror = await startMirror(
    test,
    [
      upstreamOf(first),
      upstreamOf(second, { name: "other.example", isDefault: false }),
    ],
    { offline },
  );
  const config = await writeMirrorConfig(test, mirror);
  const run = async (...args: readonly string[]): Promise<string> => {
    const result = await runCli(mirror.root, ...args, "--config", config);
    assert.equal(result.code, 0, JSON.stringify(result));
    return result.stdout;
  };
  return { mirror, run };
}

void describe("what clients of an offline mirror could not have", () => {
  for (const format of ["list", "skopeo"]) {
    void it(`is carried over as ${format}: wishes, warm, export, import`, async (test) => {
      const registries = [
        await ScriptedUpstream.start(test),
        await ScriptedUpstream.start(test),
      ];
      const [first, second] = registries;
      first?.content.addImage("library/app", app, "1.10");
      for (const name of ["team/tool", "team/tool2"]) {
        second?.content.addIndex(name, tool, "v1");
      }
      const offline = await openSide(test, registries, true);
      const connected = await openSide(test, registries, false);
      for (const path of [
        "library/app/manifests/1.10",
        "other.example/team/tool/manifests/v1",
        "other.example/team/absent/manifests/v1",
      ]) {
        const { status } = await offline.mirror.get(`/v2/${path}`);
        assert.equal(status, 404);
      }

      const folder = await tempDir(test);
      const list = join(folder, "wishes.yaml");
      const text = await offline.run("wishes", "--format", format);
      // The operator corrects a name that no registry has.
      await writeFile(list, text.replace("team/absent", "team/tool2"));
      await connected.run("warm", list);

      const bundle = join(folder, "bundle.tar");
      await connected.run("export", "--list", list, "-o", bundle);
      for (const registry of registries) await registry.close();
      await offline.run("import", bundle);

      await pullImage(offline.mirror, "library/app", "1.10");
      await pullImage(offline.mirror, "other.example/team/tool", "v1");
      const left = JSON.parse(await offline.run("wishes", "--json")) as {
        readonly ref: string;
      }[];
      assert.deepEqual(
        left.map(({ ref }) => ref),
        ["other.example/team/absent:v1"],
      );
      const jobs = JSON.parse(await connected.run("jobs", "--json")) as {
        readonly kind: string;
        readonly state: string;
      }[];
      assert.deepEqual(
        jobs.map(({ kind, state }) => `${kind} ${state}`),
        ["export done", "warm done"],
      );
      assert.match(await offline.run("jobs"), /^\S+ +import +done /m);
    });
  }
});
