import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { confirmOnTerminal } from "../../../src/cli/confirm.ts";

function terminal(isTTY = true): PassThrough & { isTTY: boolean } {
  return Object.assign(new PassThrough(), { isTTY });
}

const LINES: readonly (readonly [string, "agreed" | "declined"])[] = [
  ["y\n", "agreed"],
  ["Yes\r\n", "agreed"],
  ["\n", "declined"],
  ["n\n", "declined"],
  ["yesterday\n", "declined"],
];

for (const [line, want] of LINES) {
  void test(`${JSON.stringify(line)} is ${want}`, async () => {
    const input = terminal();
    const output = terminal();
    const answer = confirmOnTerminal(input, output, "Evict all?");
    assert.equal(String(output.read()), "Evict all? [y/N] ");
    input.write(line);
    assert.equal(await answer, want);
    assert.ok(input.isPaused());
  });
}

void test("the end of the input declines", async () => {
  const input = terminal();
  const answer = confirmOnTerminal(input, terminal(), "Evict all?");
  input.end();
  assert.equal(await answer, "declined");
});

void test("asks nothing without a terminal for input and output", async () => {
  for (const [input, output] of [
    [terminal(false), terminal()],
    [terminal(), terminal(false)],
  ] as const) {
    assert.equal(await confirmOnTerminal(input, output, "?"), "no terminal");
    assert.equal(output.read(), null);
  }
});
