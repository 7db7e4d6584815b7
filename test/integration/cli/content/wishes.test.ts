import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ListFormat } from "../../../../src/images/lists/list-entry.ts";
import { parseList } from "../../../../src/images/lists/parse-list.ts";
import type { Wish } from "../../../../src/images/wishes.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { buildImage } from "../../../support/image-builder.ts";
import { writeMirrorConfig } from "../../../support/mirror-config.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../../support/mirror-harness.ts";
import { type CliResult, runCli } from "../../../support/run-cli.ts";
import { ScriptedUpstream } from "../../../support/scripted-upstream.ts";

const { digest } = buildImage({ seed: "wish", layers: [1] }).manifest;
const REFS = [
  "other.example/a:1.10",
  `other.example/a@${digest}`,
  "registry.example/library/app:latest",
  "registry.example/library/app:yes",
];

interface Scene {
  readonly mirror: TestMirror;
  readonly run: (...args: readonly string[]) => Promise<CliResult>;
}

/** Names are asked for that two registries do not have. */
async function setUp(test: AfterTest): Promise<Scene> {
  const upstreams = [
    upstreamOf(await ScriptedUpstream.start(test)),
    upstreamOf(await ScriptedUpstream.start(test), {
      name: "other.example",
      isDefault: false,
    }),
  ];
  const mirror = await startMirror(test, upstreams);
  const config = await writeMirrorConfig(test, mirror);
  const run = (...args: readonly string[]): Promise<CliResult> =>
    runCli(mirror.root, "wishes", ...args, "--config", config);
  return { mirror, run };
}

async function wish(mirror: TestMirror): Promise<void> {
  for (const path of [
    "other.example/a/manifests/1.10",
    `other.example/a/manifests/${digest}`,
    "library/app/manifests/latest",
    "library/app/manifests/yes",
  ]) {
    assert.equal((await mirror.get(`/v2/${path}`)).status, 404);
  }
  mirror.clock.advance(60_000);
  await mirror.get("/v2/library/app/manifests/yes");
}

function refsOf(text: string, format: ListFormat): readonly string[] {
  const { entries, faults } = parseList({ name: "wishes", text, format });
  assert.deepEqual(faults, []);
  return entries.map((entry) => {
    assert(entry.kind === "reference");
    return entry.ref;
  });
}

void describe("the wishes command", () => {
  void it("prints the most wanted images first, of a running and of a stopped mirror", async (test) => {
    const { mirror, run } = await setUp(test);
    assert.deepEqual(await run(), {
      code: 0,
      stdout: "no image that clients asked for is missing\n",
      stderr: "",
    });
    await wish(mirror);
    const running = await run();
    const [heading = "", first = "", ...rest] = running.stdout.split("\n");
    assert.match(heading, /^IMAGE +REASON +PULLS +LAST$/);
    assert.match(
      first,
      /^registry\.example\/library\/app:yes +absent +2 +2026-01-01 00:01 UTC$/,
    );
    assert.equal(rest.length, 4);
    const json = JSON.parse((await run("--json")).stdout) as readonly Wish[];
    assert.deepEqual(
      json.map(({ ref }) => ref),
      REFS,
    );
    await mirror.close();
    assert.deepEqual(await run(), running);
  });

  void it("prints lists that warm reads as the same references", async (test) => {
    const { mirror, run } = await setUp(test);
    for (const format of ["list", "skopeo"]) {
      assert.deepEqual(await run("--format", format), {
        code: 0,
        stdout: "",
        stderr: "",
      });
    }
    await wish(mirror);
    const list = await run("--format", "list");
    assert.equal(list.stdout, REFS.map((ref) => `${ref}\n`).join(""));
    assert.deepEqual(refsOf(list.stdout, "plain"), REFS);
    const skopeo = await run("--format", "skopeo");
    assert.deepEqual(refsOf(skopeo.stdout, "skopeo").toSorted(), REFS);
  });

  void it("does not print JSON and a list at the same time", async (test) => {
    const { run } = await setUp(test);
    const { code, stderr } = await run("--json", "--format", "list");
    assert.equal(code, 2);
    assert.match(stderr, /'--json' cannot be used with option '--format/);
  });
});
