import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import * as fc from "fast-check";
import { parse, stringify } from "yaml";
import { formatFault } from "../../../src/config/fault.ts";
import { readYaml } from "../../../src/config/yaml-source.ts";
import { makeConfigFolder } from "../../support/config-folder.ts";
import { soakFactor } from "../../support/soak.ts";

const EXAMPLE = join(
  import.meta.dirname,
  "../../../config/private-registry.yaml",
);

void test("returns a value or faults with a line, for any text", async () => {
  const pieces = fc.array(
    fc.oneof(
      fc.constantFrom(
        ..."a: |b: |- |  |\n|\t|[|]|{|}|,|&a |*a|!t |'|\"|#|%YAML 1.1|---\n|...|? |: |<<: *a".split(
          "|",
        ),
        "|",
      ),
      fc.string({ maxLength: 4 }),
    ),
    { maxLength: 30 },
  );
  await fc.assert(
    fc.asyncProperty(pieces, async (parts) => {
      const text = parts.join("");
      const lineCount = text.split("\n").length;
      const { faults } = await readYaml(text);
      for (const { line, seen, expected } of faults) {
        assert.ok(line >= 1 && line <= lineCount + 1);
        assert.ok(seen !== "" && expected !== "");
      }
    }),
    { numRuns: 1_000 * soakFactor(0.25) },
  );
});

/** Every place in a value that can be replaced. */
function placesOf(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== "object" || value === null) return [path];
  return [
    path,
    ...Object.entries(value).flatMap(([key, child]) =>
      placesOf(child, [...path, key]),
    ),
  ];
}

function replaceAt(
  value: unknown,
  path: readonly string[],
  replacement: unknown,
): unknown {
  const [key, ...rest] = path;
  if (key === undefined || typeof value !== "object" || value === null) {
    return replacement;
  }
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value)
    ? [...(value as unknown[])]
    : { ...value };
  Reflect.set(copy, key, replaceAt(Reflect.get(copy, key), rest, replacement));
  return copy;
}

void test("returns a configuration or faults on one line each, for any replacement of any value", async (t) => {
  const folder = await makeConfigFolder(t);
  const example: unknown = parse(await readFile(EXAMPLE, "utf8"));
  const change = fc.tuple(
    fc.constantFrom(...placesOf(example)),
    fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.constantFrom(0, "", [], {}, null, "10m", true, "quay.io"),
    ),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { minLength: 1, maxLength: 4 }),
      async (changes) => {
        const document = changes.reduce<unknown>(
          (value, [path, replacement]) => replaceAt(value, path, replacement),
          example,
        );
        const result = await folder.loadText(stringify(document));
        if (result.ok) return;
        assert.ok(result.faults.length > 0);
        const printed = result.faults.map(formatFault);
        for (const line of printed) assert.match(line, /^c\.yaml:\d+: [^\n]+$/);
        assert.equal(new Set(printed).size, printed.length);
      },
    ),
    { numRuns: 200 * soakFactor(0.25) },
  );
});
