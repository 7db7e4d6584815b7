import assert from "node:assert/strict";
import { test } from "node:test";
import { outputStyle, paint } from "../../../../src/cli/output/output-style.ts";

const TABLE = [
  { name: "a terminal", tty: true, env: {}, coloured: true },
  { name: "no terminal", tty: false, env: {}, coloured: false },
  { name: "a pipe", tty: undefined, env: {}, coloured: false },
  { name: "NO_COLOR", tty: true, env: { NO_COLOR: "1" }, coloured: false },
  { name: "NO_COLOR=0", tty: true, env: { NO_COLOR: "0" }, coloured: false },
  { name: "empty NO_COLOR", tty: true, env: { NO_COLOR: "" }, coloured: true },
  { name: "TERM=dumb", tty: true, env: { TERM: "dumb" }, coloured: false },
  {
    name: "FORCE_COLOR without a terminal",
    tty: false,
    env: { FORCE_COLOR: "1" },
    coloured: false,
  },
  {
    name: "NO_COLOR with FORCE_COLOR",
    tty: true,
    env: { NO_COLOR: "1", FORCE_COLOR: "1" },
    coloured: false,
  },
] as const;

for (const { name, tty, env, coloured } of TABLE) {
  void test(`${name}: ${coloured ? "colours" : "no colour"}`, () => {
    const stream = {
      ...(tty === undefined ? {} : { isTTY: tty }),
      columns: 80,
    };
    const style = outputStyle(stream, env);
    assert.equal(style.isColoured, coloured);
    assert.equal(style.width, tty === true ? 80 : undefined);
    assert.equal(
      paint(style, "green", "up"),
      coloured ? "\u001B[32mup\u001B[39m" : "up",
    );
    assert.equal(paint(style, "green", ""), "");
  });
}

void test("a terminal without a size has no width", () => {
  assert.equal(outputStyle({ isTTY: true, columns: 0 }, {}).width, undefined);
  assert.equal(outputStyle({ isTTY: true }, {}).width, undefined);
});
