import assert from "node:assert/strict";
import { chmod, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../support/after-test.ts";
import { Child } from "../support/child-process.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { buildImage } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";
import { Terminal } from "../support/terminal.ts";

const PROJECT = join(import.meta.dirname, "../..");

void describe("npm start on a terminal", () => {
  void it("prints its addresses, what it mirrors, and a command to try", async (test) => {
    await requireCommands(["script"]);
    const root = join(await tempDir(test), "data");
    const child = new Child(test, {
      command: "script",
      // `script` provides a terminal; its transcript is discarded.
      args: ["--quiet", "--return", "--command", "npm start", "/dev/null"],
      cwd: PROJECT,
      env: {
        ENTREPOT_LISTEN: "127.0.0.1:0",
        ENTREPOT_OPERATOR__LISTEN: "127.0.0.1:0",
        ENTREPOT_STORAGE__ROOT: root,
      },
      isWrapper: true,
    });
    await child.line((line) => (line.startsWith("Try: ") ? line : undefined));
    const [where = "", what, command] = child.lines
      .slice(-3)
      .map(({ text }) => text.trimEnd());
    const host =
      /^Listening on http:\/\/(127\.0\.0\.1:\d+); operator API on http:\/\/127\.0\.0\.1:\d+$/.exec(
        where,
      )?.[1];
    assert.ok(host, child.output());
    assert.equal(
      what,
      `Mirroring docker.io, quay.io, ghcr.io and 9 more, stored in ${root}`,
    );
    assert.equal(command, `Try: docker pull ${host}/docker.io/library/alpine`);
    const response = await fetch(`http://${host}/v2/`);
    assert.equal(response.status, 200);
  });
});

const LONG = "team/a-repository-with-a-name-that-is-longer-than-a-terminal-is";

/** A mirror with three images, and the environment in which `entrepot` is its command line. */
async function setUp(test: AfterTest): Promise<{
  readonly mirror: TestMirror;
  readonly env: Readonly<Record<string, string>>;
}> {
  await requireCommands(["tmux", "bash", "zsh", "fish"]);
  const upstream = await ScriptedUpstream.start(test);
  const mirror = await startMirror(test, [
    upstreamOf(upstream, { libraryPrefix: true }),
  ]);
  for (const [repository, tag] of [
    ["library/app", "3.20"],
    ["library/app", "3.21"],
    [LONG, "2026.11.29"],
  ] as const) {
    const image = buildImage({ seed: `${repository}:${tag}`, layers: [9_000] });
    upstream.content.addImage(repository, image, tag);
    await pullImage(mirror, repository, tag);
  }
  const folder = await tempDir(test);
  const config = join(folder, "entrepot.yaml");
  await writeFile(
    config,
    JSON.stringify({
      operator: { listen: new URL(mirror.operatorOrigin).host },
      storage: { root: mirror.root },
      upstreams: { "registry.example": { default: true, libraryPrefix: true } },
    }),
  );
  const program = join(folder, "entrepot");
  const main = join(PROJECT, "src/main.ts");
  await writeFile(
    program,
    `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`,
  );
  await chmod(program, 0o755);
  const path = `${folder}${delimiter}${process.env["PATH"] ?? ""}`;
  return {
    mirror,
    env: { PATH: path, HOME: folder, ENTREPOT_CONFIG: config, PS1: "$ " },
  };
}

/** Opens a shell and waits for its prompt. */
async function openShell(
  test: AfterTest,
  env: Readonly<Record<string, string>>,
  command = "bash --norc --noprofile -i",
): Promise<Terminal> {
  const size = { columns: 72, rows: 24 };
  const terminal = await Terminal.start(test, { command, env, ...size });
  await terminal.type("echo rea''dy");
  await terminal.press("Enter");
  await terminal.shows(/^ready$/m);
  return terminal;
}

void describe("commands on a terminal", () => {
  void it("fit tables to its width, in colour but with NO_COLOR, and whole for a pipe", async (test) => {
    const { env } = await setUp(test);
    const terminal = await openShell(test, env);
    await terminal.type("clear; entrepot ls; echo e''nd");
    await terminal.press("Enter");
    const lines = (await terminal.shows(/^end$/m)).split("\n");
    assert.match(lines[0] ?? "", /^IMAGE +SIZE +PULLED +PLATFORMS/);
    assert.match(lines[1] ?? "", /^registry.*app:3\.20 /);
    assert.match(lines[3] ?? "", /^registry.*….*\.29 .* UTC +linux\/amd64$/);
    assert.equal(lines[4], "end", "a line is wrapped");
    const coloured = await terminal.screen({ colours: true });
    assert.ok(coloured.startsWith("\u001B[1mIMAGE"), coloured);

    await terminal.type("clear; NO_COLOR=1 entrepot ls; echo e''nd");
    await terminal.press("Enter");
    await terminal.shows(/^end$/m);
    assert.ok((await terminal.screen({ colours: true })).startsWith("IMAGE"));

    await terminal.type(`clear; entrepot ls | grep -c ${LONG}:2026.11.29`);
    await terminal.press("Enter");
    await terminal.shows(/^1$/m);
  });

  void it("ask before more than half of the cache is removed", async (test) => {
    const { env } = await setUp(test);
    const terminal = await openShell(test, env);
    for (const [answer, shown] of [
      ["n", /^entrepot: declined; nothing was removed\nexit 1$/m],
      ["", /^entrepot: declined; nothing was removed\nexit 1$/m],
    ] as const) {
      await terminal.type("clear; entrepot rm '**'; echo exit $?");
      await terminal.press("Enter");
      await terminal.shows(/^Remove 3 images, .+ in the cache\? \[y\/N\]$/m);
      await terminal.type(answer);
      await terminal.press("Enter");
      await terminal.shows(shown);
    }
    await terminal.type("clear; entrepot rm '**'");
    await terminal.press("Enter");
    await terminal.shows(/\[y\/N\]$/m);
    await terminal.press("C-c");
    await terminal.type("echo code $?; entrepot ls | grep -c registry");
    await terminal.press("Enter");
    await terminal.shows(/^code 130\n3$/m);
    await terminal.type("clear; entrepot rm '**' </dev/null; echo exit $?");
    await terminal.press("Enter");
    await terminal.shows(/--yes[^]*\nexit 2$/m);
    await terminal.type("clear; entrepot evict --to 0");
    await terminal.press("Enter");
    await terminal.shows(/^Evict 3 images, .+\? \[y\/N\]$/m);
    await terminal.type("yes");
    await terminal.press("Enter");
    await terminal.shows(/^3 images, .+ freed$/m);
  });

  void it("redraw the status until C-c, which ends the process as a signal does", async (test) => {
    const { mirror, env } = await setUp(test);
    const terminal = await openShell(test, env);
    await terminal.type("clear; entrepot status --watch");
    await terminal.press("Enter");
    await terminal.shows(/^hits +\d.* of \d+ requests since the start$/m);
    await pullImage(mirror, "library/app", "3.20");
    const screen = await terminal.shows(/^content +3 tags/m);
    assert.match(screen, /^entrepot \d.*, ready$/m);
    await terminal.press("C-c");
    await terminal.type("echo code $?");
    await terminal.press("Enter");
    await terminal.shows(/^code 130$/m);
  });

  void it("end quietly when the reader of a pipe leaves", async (test) => {
    const { env } = await setUp(test);
    const terminal = await openShell(test, env);
    for (const command of [
      "--help",
      "ls",
      "status --watch",
      "completion zsh",
    ]) {
      await terminal.type(
        `clear; entrepot ${command} | head -1 >/dev/null; echo codes \${PIPESTATUS[@]}`,
      );
      await terminal.press("Enter");
      assert.match(
        await terminal.shows(/^codes [\d ]+$/m),
        /^codes 0 0$/m,
        command,
      );
    }
  });
});

const SHELLS = [
  {
    name: "bash",
    command: "bash --norc --noprofile -i",
    load: "source <(entrepot completion bash); bind 'set show-all-if-ambiguous on'",
  },
  {
    name: "zsh",
    command: "zsh -f -i",
    load: "autoload -Uz compinit; compinit -u -D; source <(entrepot completion zsh)",
  },
  {
    name: "fish",
    command: "fish --no-config -i",
    load: "set -g fish_autosuggestion_enabled 0; entrepot completion fish | source",
  },
] as const;

void describe("completion", () => {
  for (const { name, command, load } of SHELLS) {
    void it(`works in ${name}`, async (test) => {
      const { env } = await setUp(test);
      const terminal = await openShell(test, env, command);
      await terminal.type(`${load}; clear; echo loa''ded`);
      await terminal.press("Enter");
      await terminal.shows(/^loaded$/m);
      for (const [typed, completed] of [
        ["entrepot inspe", /entrepot inspect$/m],
        ["entrepot tls self", /entrepot tls self-signed$/m],
        ["entrepot evict --dry", /entrepot evict --dry-run$/m],
        ["entrepot completion fi", /entrepot completion fish$/m],
        ["entrepot pin app:3.2", /3\.20\b[^]*3\.21\b/],
        [
          "entrepot unpin registry.example/te",
          /longer-than-a-terminal-is:2026\.11\.29$/,
        ],
      ] as const) {
        await terminal.type(typed);
        await terminal.press("Tab");
        await terminal.shows(completed);
        // The first one may only close a menu.
        await terminal.press("C-c", "C-c");
        await terminal.type("clear");
        await terminal.press("Enter");
      }
    });
  }
});
