import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { formatJsonSchema, formatReadme } from "../config-reference.ts";
import { commandsReference } from "./commands-reference.ts";
import { replaceGeneratedPart } from "./generated-part.ts";
import { metricsReference } from "./metrics-reference.ts";
import { operatorApiReference } from "./operator-api-reference.ts";

const PROJECT = join(import.meta.dirname, "../../..");

/** A file that `npm run docs` writes, at its path below the project. */
export interface ReferencePage {
  readonly path: string;
  /** @param text the committed text, with the parts that are written by hand */
  generate(text: string, test: AfterTest): Promise<string>;
}

export const REFERENCE_PAGES: readonly ReferencePage[] = [
  { path: "config/entrepot.schema.json", generate: () => formatJsonSchema() },
  { path: "config/README.md", generate: formatReadme },
  {
    path: "src/cli/README.md",
    generate: (text) => replaceGeneratedPart(text, commandsReference()),
  },
  {
    path: "src/telemetry/README.md",
    generate: (text) => replaceGeneratedPart(text, metricsReference()),
  },
  {
    path: "src/http/operator/README.md",
    generate: async (text, test) =>
      replaceGeneratedPart(text, await operatorApiReference(test)),
  },
];

export function readReferencePage({ path }: ReferencePage): Promise<string> {
  return readFile(join(PROJECT, path), "utf8");
}

export function referencePageFile({ path }: ReferencePage): string {
  return join(PROJECT, path);
}
