import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import {
  createProgram,
  runCommandLine,
} from "../../../../src/cli/command-line.ts";
import { ENGINE_NAMES } from "../../../../src/cli/setup/clients/client-config-command.ts";
import { ENGINES } from "../../../../src/cli/setup/clients/engines.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";
import { leavesOf } from "../../../support/reference/commands-reference.ts";
import { runCommand } from "../../../support/run-command.ts";

async function scriptOf(shell: string): Promise<string> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const io = { env: {}, cwd: "/", stdin: new PassThrough(), stdout, stderr };
  const code = await runCommandLine(["completion", shell], io);
  assert.deepEqual([code, stderr.text], [0, ""]);
  return stdout.text;
}

/** Runs the function of the script as readline does. */
async function inBash(line: string): Promise<string[]> {
  const script = `${await scriptOf("bash")}
COMP_WORDBREAKS=$' \\t\\n"\\'@><=;|&(:'
COMP_LINE=$1 COMP_POINT=\${#1}
entrepot() { printf '%s\\n' "$*" alpine:3.20 alpine:3.21; }
_entrepot
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await runCommand("bash", ["-c", script, "bash", line]);
  return stdout.trimEnd().split("\n");
}

void describe("entrepot completion", () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    void it(`${shell}: has every command and option, without hidden ones`, async () => {
      const script = await scriptOf(shell);
      for (const leaf of leavesOf(createProgram())) {
        assert.match(script, new RegExp(`\\b${leaf.name()}\\b`));
        for (const { long, hidden } of leaf.options) {
          if (hidden) continue;
          const flag =
            shell === "fish" ? `-l ${long?.slice(2)} ` : String(long);
          assert.ok(script.includes(flag), `${leaf.name()} ${flag}`);
        }
      }
      assert.doesNotMatch(script, /-l refs|'--refs/);
    });
  }

  const IN_BASH: readonly (readonly [string, readonly string[]])[] = [
    ["entrepot inspe", ["inspect"]],
    ["entrepot tls ", ["self-signed"]],
    ["entrepot tls self-signed --ho", ["--host"]],
    ["entrepot tls self-signed --host x --ou", ["--out"]],
    ["entrepot completion ", ["bash", "zsh", "fish"]],
    ["entrepot completion bash z", [""]],
    ["entrepot client-config con", ["containerd"]],
    ["entrepot import /etc/host.co", ["/etc/host.conf"]],
    ["entrepot warm --format sko", ["skopeo"]],
    ["entrepot ls --js", ["--json"]],
    ["entrepot nothing ", [""]],
    ["entrepot ls --config /etc/host.co", ["/etc/host.conf"]],
    ["entrepot ls --config=/etc/host.co", ["/etc/host.conf"]],
    [
      "entrepot pin al",
      ["completion bash --refs al", "alpine:3.20", "alpine:3.21"],
    ],
    [
      "entrepot pin --config x.yaml al",
      [
        "completion bash --refs al --config x.yaml",
        "alpine:3.20",
        "alpine:3.21",
      ],
    ],
    // Readline replaces what follows the colon.
    [
      "entrepot pin alpine:3",
      ["completion bash --refs alpine:3", "3.20", "3.21"],
    ],
  ];
  for (const [line, want] of IN_BASH) {
    void it(`bash completes ${JSON.stringify(line)}`, async () => {
      assert.deepEqual(await inBash(line), want);
    });
  }

  void it("offers every engine of client-config", () => {
    assert.deepEqual(ENGINE_NAMES, [...ENGINES.keys()]);
  });

  void it("refuses other shells by name", async () => {
    const stderr = new CollectedOutput();
    const stdout = new CollectedOutput();
    const io = { env: {}, cwd: "/", stdin: new PassThrough(), stdout, stderr };
    assert.equal(await runCommandLine(["completion", "tcsh"], io), 2);
    assert.match(stderr.text, /'tcsh' is invalid.*bash, zsh, fish/);
  });
});
