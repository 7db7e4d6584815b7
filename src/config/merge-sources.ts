import { isMapping } from "./config-file.ts";
import type { EnvironmentValue } from "./environment.ts";
import type { KeyPath } from "./fault.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
  WELL_KNOWN_UPSTREAMS,
} from "./schema/well-known-upstreams.ts";

/** The registry that is hosted if the configuration has no `hosted` key. */
export const IMPLICIT_HOSTED = "local";

/** The document merged from all sources, not validated. */
export interface MergedSources {
  readonly document: Record<string, unknown>;
  /** Whether the implicit hosted registry is omitted because an upstream has its name. */
  readonly isLocalOmitted: boolean;
}

/**
 * Merges all sources into one document, with the well-known upstreams and the implicit hosted
 * registry if none are written. A hosted default replaces the default among the well-known upstreams.
 */
export function mergeSources(
  fromFile: Record<string, unknown>,
  fromEnvironment: readonly EnvironmentValue[],
  overrides: { readonly offline?: boolean | undefined } | undefined,
): MergedSources {
  const document = { ...fromFile };
  for (const key of ["upstreams", "hosted"]) {
    const entries = document[key];
    if (!isMapping(entries)) continue;
    for (const [name, entry] of Object.entries(entries)) {
      if (entry === null) entries[name] = {};
    }
  }
  for (const { path, value } of fromEnvironment) setAt(document, path, value);
  if (!("upstreams" in document)) {
    const isDefaultHosted = hasDefault(document["hosted"]);
    document["upstreams"] = Object.fromEntries(
      WELL_KNOWN_UPSTREAMS.map((name, index) => [
        name,
        { default: index === 0 && !isDefaultHosted },
      ]),
    );
  }
  const isHostedWritten = "hosted" in document;
  const isLocalOmitted =
    !isHostedWritten && isUpstreamName(document["upstreams"], IMPLICIT_HOSTED);
  if (!isHostedWritten) {
    document["hosted"] = isLocalOmitted ? {} : { [IMPLICIT_HOSTED]: {} };
  }
  if (overrides?.offline !== undefined) {
    document["offline"] = overrides.offline;
  }
  return { document, isLocalOmitted };
}

function hasDefault(hosted: unknown): boolean {
  return (
    isMapping(hosted) &&
    Object.values(hosted).some(
      (entry) => isMapping(entry) && entry["default"] === true,
    )
  );
}

/** Returns whether an upstream has the name or alias, in a document that is not validated yet. */
function isUpstreamName(upstreams: unknown, name: string): boolean {
  if (!isMapping(upstreams)) return false;
  return Object.entries(upstreams).some(([key, upstream]) => {
    if (key === name) return true;
    const aliases = isMapping(upstream) ? upstream["aliases"] : undefined;
    const names =
      aliases ?? (key === DOCKER_HUB ? DOCKER_HUB_ALIASES : undefined);
    return Array.isArray(names) && names.includes(name);
  });
}

/** Sets a value, unless a parent is not a mapping: the schema then reports that fault of the file. */
function setAt(
  document: Record<string, unknown>,
  path: KeyPath,
  value: unknown,
): void {
  let parent: Record<string, unknown> = document;
  for (const key of path.slice(0, -1)) {
    if (parent[key] === undefined) parent[key] = {};
    const child = parent[key];
    if (!isMapping(child)) return;
    parent = child;
  }
  const last = path.at(-1);
  if (last !== undefined) parent[last] = value;
}
