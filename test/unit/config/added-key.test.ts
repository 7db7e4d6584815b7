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
    uploads: {
      type: "integer",
      minimum: 1,
      maximum: 9,
      default: 4,
      description: "Uploads at a time.",
      "x-expected": "a whole number from 1 to 9",
    },
    uploadTimeout: durationOf("30s", {
      description: "The time that an upload may take.",
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
  const count: number = limits.uploads;
  const timeoutMs: number = limits.uploadTimeoutMs;
  assert.deepEqual([count, timeoutMs], [4, 30_000]);
});

void test("a scalar key that is added to the schema alone is read from file and environment, and described", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.loadText("limits: { uploadTimeout: 90s }", {
    schema: SCHEMA,
    env: { ENTREPOT_LIMITS__UPLOADS: "7" },
  });
  assert.ok(result.ok);
  assert.deepEqual(result.warnings, []);
  const { limits } = describeConfig(result.config, SCHEMA);
  assert.deepEqual(limits, {
    connections: 0,
    connectionsPerAddress: 0,
    fills: 0,
    uploads: 7,
    uploadTimeout: "90s",
  });
  const { values } = readEnvironment({ ENTREPOT_LIMITS__UPLOADS: "7" });
  assert.deepEqual(values, []);
});

void test("a scalar key that is added to the schema alone is validated", async (t) => {
  const folder = await makeConfigFolder(t);
  const text = "limits:\n  uploads: 10\n  uploadTimeout: soon\n";
  const result = await folder.loadText(text, { schema: SCHEMA });
  assert.deepEqual(printedFaults(result), [
    "c.yaml:2: limits.uploads: got 10; expected a whole number from 1 to 9",
    'c.yaml:3: limits.uploadTimeout: got "soon"; expected a duration such as 30s, 10m, 24h, 90d or forever',
  ]);
});

void test("a scalar key that is added to the schema alone is in the JSON Schema and in the reference", async () => {
  const validate = new Ajv({ allowUnionTypes: true }).compile(
    JSON.parse(await formatJsonSchema(SCHEMA)) as object,
  );
  assert.ok(validate({ limits: { uploads: 9, uploadTimeout: "1m" } }));
  assert.ok(!validate({ limits: { uploads: 10 } }));
  assert.ok(!validate({ limits: { uploadTimeout: "soon" } }));
  const documented = documentedKeys(SCHEMA).map(({ path }) => path);
  assert.ok(documented.includes("limits.uploadTimeout"));
});
