import assert from "node:assert/strict";
import { createPublicKey } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { Ajv } from "ajv";
import { parse } from "yaml";
import { FORMS } from "../../../src/config/schema/forms.ts";
import { CONFIG_SCHEMA } from "../../../src/config/schema/schema.ts";
import type { SchemaNode } from "../../../src/config/schema/schema-node.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import {
  type ConfigFolder,
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";
import {
  documentedKeys,
  formatJsonSchema,
  formatReadme,
  README_FILE,
  SCHEMA_FILE,
} from "../../support/config-reference.ts";

const STALE = "run npm run docs and commit the result";
const CONFIG_FOLDER = dirname(README_FILE);
const EXAMPLES = (await readdir(CONFIG_FOLDER)).filter((name) =>
  name.endsWith(".yaml"),
);

void test("the published JSON Schema is generated from the schema", async () => {
  const published = await readFile(SCHEMA_FILE, "utf8");
  assert.equal(published, await formatJsonSchema(), STALE);
});

void test("the tables of the README are generated from the schema", async () => {
  const readme = await readFile(README_FILE, "utf8");
  assert.equal(readme, await formatReadme(readme), STALE);
});

void test("the published JSON Schema matches its meta-schema and compiles in a strict validator", async () => {
  const schema: object = JSON.parse(await readFile(SCHEMA_FILE, "utf8"));
  const ajv = new Ajv({ strict: true, allowUnionTypes: true });
  assert.equal(ajv.validateSchema(schema), true, ajv.errorsText());
  const validate = ajv.compile(schema);
  for (const name of EXAMPLES) {
    const text = await readFile(join(CONFIG_FOLDER, name), "utf8");
    assert.ok(validate(parse(text)), `${name}: ${ajv.errorsText()}`);
  }
  assert.ok(!validate({ evictions: {} }));
  assert.ok(!validate({ upstreams: { "quay.io": { connectTimeout: "5" } } }));
});

void test("every key has a description, an expectation, and a meaning when absent", () => {
  for (const { path, node, isRequired } of documentedKeys()) {
    assert.match(node.description ?? "", /^[\p{Lu}`].*\.$/su, path);
    assert.ok(node["x-expected"], path);
    const isTold =
      isRequired || node.default !== undefined || "x-absent" in node;
    assert.ok(isTold, path);
  }
});

void test("every key that may be empty or zero describes what that means", () => {
  for (const { path, node } of documentedKeys()) {
    if (mayBeZero(node)) assert.ok(node["x-zero"], path);
  }
});

void test("every example and default in the schema is valid", () => {
  const ajv = new Ajv({ strict: false, allowUnionTypes: true });
  for (const { path, node } of documentedKeys()) {
    const validate = ajv.compile(node);
    const { default: byDefault, examples = [] } = node;
    const values =
      byDefault === undefined ? examples : [byDefault, ...examples];
    for (const value of values) {
      assert.ok(validate(value), `${path}: ${JSON.stringify(value)}`);
      const form = node["x-form"];
      if (form !== undefined && typeof value === "string") {
        assert.equal(FORMS[form].findFlaw(value), undefined, path);
      }
    }
  }
});

function mayBeZero(node: SchemaNode): boolean {
  return node["x-form"] === "duration"
    ? node["x-atLeast"] === undefined
    : node.type === "array" && node.minItems === undefined;
}

/** Creates the files that an example names. */
async function furnish(folder: ConfigFolder, text: string): Promise<void> {
  const authority = createCertificateAuthority();
  const issued = authority.issue();
  const hash = `$2b$12$${"a".repeat(53)}`;
  const contents: Readonly<Record<string, string>> = {
    passwordFile: "hunter2\n",
    dockerConfigFile: "{}",
    caFile: authority.cert,
    certificateFile: issued.cert,
    keyFile: issued.key,
    htpasswdFile: `alice:${hash}\n`,
    tokenFile: "0123456789abcdef0123456789abcdef\n",
    jwksFile: JSON.stringify({
      keys: [createPublicKey(issued.key).export({ format: "jwk" })],
    }),
  };
  for (const [, key = "", file = ""] of text.matchAll(
    /^[\s-]*(\w+File): ([\w/.-]+)$/gm,
  )) {
    await folder.write(file, contents[key] ?? "");
  }
}

for (const name of EXAMPLES) {
  void test(`config/${name} is accepted without a warning and names the schema`, async (t) => {
    const folder = await makeConfigFolder(t);
    const text = await readFile(join(CONFIG_FOLDER, name), "utf8");
    assert.ok(
      text.startsWith("# yaml-language-server: $schema=entrepot.schema.json\n"),
    );
    await furnish(folder, text);
    const result = await folder.loadText(text);
    assert.deepEqual(printedFaults(result), []);
    assert.deepEqual(printedWarnings(result), []);
  });
}

void test("config/entrepot.yaml has every key", async () => {
  const text = await readFile(join(CONFIG_FOLDER, "entrepot.yaml"), "utf8");
  const written = new Set(keysOf(parse(text), CONFIG_SCHEMA, ""));
  for (const { path } of documentedKeys()) {
    assert.ok(written.has(path), `${path} is missing`);
  }
});

/** Returns paths in the form of {@link documentedKeys}. */
function keysOf(value: unknown, node: SchemaNode, path: string): string[] {
  if (Array.isArray(value)) {
    const items = node.items ?? {};
    const at = node.properties === undefined ? `${path}[]` : path;
    return value.flatMap((item: unknown) => keysOf(item, items, at));
  }
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) => {
    const known = node.properties?.[key];
    const name = known === undefined ? "<name>" : key;
    const childPath = path === "" ? name : `${path}.${name}`;
    const next = known ?? (node.additionalProperties || {});
    return [childPath, ...keysOf(child, next, childPath)];
  });
}
