import assert from "node:assert/strict";
import { test } from "node:test";
import { Ajv } from "ajv";
import { describeConfig } from "../../../src/config/describe.ts";
import { readEnvironment } from "../../../src/config/environment.ts";
import { CONFIG_SCHEMA } from "../../../src/config/schema/schema.ts";
import {
  durationOf,
  type SchemaNode,
} from "../../../src/config/schema/schema-node.ts";
import type { Settings } from "../../../src/config/schema/settings.ts";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";
import {
  documentedKeys,
  formatJsonSchema,
} from "../../support/config-reference.ts";

/** A copy of the schema with two more scalar keys below `limits`. */
const LIMITS = {
  ...CONFIG_SCHEMA.properties.limits,
  properties: {
    ...CONFIG_SCHEMA.properties.limits.properties,
    writes: {
      type: "integer",
      minimum: 1,
      maximum: 9,
      default: 4,
      description: "Writes at a time.",
      "x-expected": "a whole number from 1 to 9",
    },
    writeTimeout: durationOf("30s", {
      description: "The time that a write may take.",
      "x-zero": "unlimited",
    }),
  },
} as const satisfies SchemaNode;

const SCHEMA = {
  ...CONFIG_SCHEMA,
  properties: { ...CONFIG_SCHEMA.properties, limits: LIMITS },
} as const;

void test("a scalar key that is added to the schema alone has its default and its type", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.loadText("offline: true", { schema: SCHEMA });
  assert.ok(result.ok);
  // The compiler infers both members from the schema.
  const limits = result.config.limits as Settings<typeof LIMITS>;
  const count: number = limits.writes;
  const timeoutMs: number = limits.writeTimeoutMs;
  assert.deepEqual([count, timeoutMs], [4, 30_000]);
});

void test("a scalar key that is added to the schema alone is read from file and environment, and described", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.loadText("limits: { writeTimeout: 90s }", {
    schema: SCHEMA,
    env: { ENTREPOT_LIMITS__WRITES: "7" },
  });
  assert.ok(result.ok);
  assert.deepEqual(result.warnings, []);
  const { limits } = describeConfig(result.config, SCHEMA);
  assert.deepEqual(limits, {
    connections: 0,
    connectionsPerAddress: 0,
    fills: 0,
    uploads: 0,
    writes: 7,
    writeTimeout: "90s",
  });
  const { values } = readEnvironment({ ENTREPOT_LIMITS__WRITES: "7" });
  assert.deepEqual(values, []);
});

void test("a scalar key that is added to the schema alone is validated", async (t) => {
  const folder = await makeConfigFolder(t);
  const text = "limits:\n  writes: 10\n  writeTimeout: soon\n";
  const result = await folder.loadText(text, { schema: SCHEMA });
  assert.deepEqual(printedFaults(result), [
    "c.yaml:2: limits.writes: got 10; expected a whole number from 1 to 9",
    'c.yaml:3: limits.writeTimeout: got "soon"; expected a duration such as 30s, 10m, 24h, 90d or forever',
  ]);
});

void test("a scalar key that is added to the schema alone is in the JSON Schema and in the reference", async () => {
  const validate = new Ajv({ allowUnionTypes: true }).compile(
    JSON.parse(await formatJsonSchema(SCHEMA)) as object,
  );
  assert.ok(validate({ limits: { writes: 9, writeTimeout: "1m" } }));
  assert.ok(!validate({ limits: { writes: 10 } }));
  assert.ok(!validate({ limits: { writeTimeout: "soon" } }));
  const documented = documentedKeys(SCHEMA).map(({ path }) => path);
  assert.ok(documented.includes("limits.writeTimeout"));
});
