import type { AfterTest } from "../after-test.ts";
import { startMirror } from "../mirror-harness.ts";
import { code, markdownTable } from "./markdown-table.ts";

const METHODS = ["get", "put", "post", "patch", "delete"] as const;

interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
}

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly description?: string;
  readonly schema?: Schema;
}

interface Body {
  readonly description?: string;
  readonly content?: Readonly<Record<string, { readonly schema?: Schema }>>;
}

interface Operation {
  readonly summary?: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: Body;
  readonly responses?: Readonly<Record<string, Body>>;
}

type PathItem = Readonly<
  Partial<Record<(typeof METHODS)[number], Operation>>
> & { readonly parameters?: readonly Parameter[] };

interface OpenApiDocument {
  readonly paths: Readonly<Record<string, PathItem>>;
  readonly components?: {
    readonly schemas?: Readonly<Record<string, Schema>>;
  };
}

/** Describes the operator API by the OpenAPI document that a running mirror serves. */
export async function operatorApiReference(test: AfterTest): Promise<string[]> {
  const mirror = await startMirror(test, []);
  const { body } = await mirror.operate("GET", "/openapi.json");
  const document = body as OpenApiDocument;
  const overview: string[][] = [];
  const sections: string[] = [];
  const paths = Object.entries(document.paths).toSorted(([one], [other]) =>
    one < other ? -1 : 1,
  );
  for (const [path, item] of paths) {
    for (const method of METHODS) {
      const operation = item[method];
      if (operation === undefined) continue;
      const name = code(`${method.toUpperCase()} ${path}`);
      overview.push([name, operation.summary ?? ""]);
      sections.push(...operationSection(name, item, operation));
    }
  }
  return [
    markdownTable(["Request", "Does"], overview),
    ...sections,
    "### Types",
    ...typesOf(document),
  ];
}

function operationSection(
  name: string,
  item: PathItem,
  operation: Operation,
): string[] {
  const sections = [`### ${name}`, operation.summary ?? ""];
  const parameters = [
    ...(item.parameters ?? []),
    ...(operation.parameters ?? []),
  ];
  if (parameters.length > 0) {
    sections.push(
      markdownTable(
        ["Parameter", "In", "Value", "Meaning"],
        parameters.map((parameter) => [
          code(parameter.name),
          parameter.in,
          valueOf(parameter.schema ?? {}),
          parameter.description ?? "",
        ]),
      ),
    );
  }
  const request = schemaOf(operation.requestBody);
  if (request !== undefined) {
    sections.push("Request body:", typeBlock("Request", request));
  }
  const responses = Object.entries(operation.responses ?? {});
  sections.push(
    markdownTable(
      ["Status", "Meaning", "Body"],
      responses.map(([status, response]) => [
        status,
        response.description ?? "",
        bodyCell(response),
      ]),
    ),
  );
  for (const [status, response] of responses) {
    const schema = schemaOf(response);
    if (schema?.properties === undefined) continue;
    sections.push(typeBlock(`Status${status}`, schema));
  }
  return sections;
}

function schemaOf(body: Body | undefined): Schema | undefined {
  return Object.values(body?.content ?? {})[0]?.schema;
}

function bodyCell(response: Body): string {
  const schema = schemaOf(response);
  if (schema === undefined) return "";
  const [mediaType = ""] = Object.keys(response.content ?? {});
  if (!/[/+]json$/.test(mediaType)) return code(mediaType);
  if (schema.$ref !== undefined) return code(referenceName(schema.$ref));
  return schema.properties === undefined ? "JSON" : "see below";
}

/** As in `integer from 1 to 1000, default 100`. */
function valueOf(schema: Schema): string {
  const { minimum, maximum } = schema;
  const range = [
    minimum === undefined ? "" : ` from ${minimum}`,
    maximum === undefined ? "" : ` to ${maximum}`,
  ].join("");
  const fallback =
    schema.default === undefined
      ? ""
      : `, default ${JSON.stringify(schema.default)}`;
  const kind = typeof schema.type === "string" ? schema.type : typeText(schema);
  return `${kind}${range}${fallback}`;
}

function typesOf({ components }: OpenApiDocument): string[] {
  return Object.entries(components?.schemas ?? {}).map(([name, schema]) =>
    typeBlock(name, schema),
  );
}

/** Prettier formats the block with the page. */
function typeBlock(name: string, schema: Schema): string {
  return `\`\`\`ts\ntype ${name} = ${typeText(schema)};\n\`\`\``;
}

/** Renders a schema as a TypeScript type. */
function typeText(schema: Schema): string {
  const { anyOf = schema.oneOf, properties } = schema;
  if (schema.$ref !== undefined) return referenceName(schema.$ref);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) {
    return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  }
  if (anyOf !== undefined) return unionText(anyOf);
  if (Array.isArray(schema.type)) {
    return unionText(schema.type.map((type: string) => ({ ...schema, type })));
  }
  if (schema.type === "null") return "null";
  if (properties !== undefined) return objectText(properties, schema.required);
  switch (schema.type) {
    case "array":
      return `readonly (${typeText(schema.items ?? {})})[]`;
    case "integer":
    case "number":
      return "number";
    case "boolean":
    case "string":
      return schema.type;
    case undefined:
    default:
      return "object";
  }
}

function unionText(members: readonly Schema[]): string {
  return [...new Set(members.map(typeText))].join(" | ");
}

function objectText(
  properties: Readonly<Record<string, Schema>>,
  required: readonly string[] = [],
): string {
  const members = Object.entries(properties).map(([name, schema]) => {
    const mark = required.includes(name) ? "" : "?";
    return `${JSON.stringify(name)}${mark}: ${typeText(schema)};`;
  });
  return `{\n${members.join("\n")}\n}`;
}

function referenceName(reference: string): string {
  return reference.slice(reference.lastIndexOf("/") + 1);
}
