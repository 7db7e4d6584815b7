import { isDeepStrictEqual } from "node:util";
import { buildConfig } from "./build.ts";
import { isMapping } from "./config-file.ts";
import type { Config } from "./config.ts";
import { describeConfig } from "./describe.ts";
import type { KeyPath } from "./fault.ts";
import { resolvePath } from "./files/files.ts";
import { IMPLICIT_HOSTED } from "./merge-sources.ts";
import { schemaAt } from "./schema/schema-node.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";
import { validateDocument } from "./validate.ts";
import { WELL_KNOWN_UPSTREAMS } from "./schema/well-known-upstreams.ts";

/** The base folders of paths in defaults. */
export interface DefaultFolders {
  /** Absolute. */
  readonly cwd: string;
  readonly home: string;
}

/**
 * Returns the part of `describeConfig` that differs from the defaults, as a configuration that means
 * the same. If the upstreams are not the well-known ones with their defaults, each is named, since
 * an `upstreams` key replaces the set; the same holds for `hosted`.
 */
export function describeChanges(
  config: Config,
  folders: DefaultFolders,
): Record<string, unknown> {
  const names = [...config.upstreams, ...(config.upstreamTemplates ?? [])].map(
    ({ name }) => name,
  );
  const hostedNames = config.hosted.map(({ name }) => name);
  const isWellKnown = isDeepStrictEqual(names, WELL_KNOWN_UPSTREAMS);
  const { upstreams, hosted, ...others } = describeConfig(config);
  // A hosted default replaces the default among the well-known upstreams.
  const hasDefaultUpstream =
    isWellKnown && !config.hosted.some(({ isDefault }) => isDefault);
  const registries = { upstreams: names, hosted: hostedNames };
  const {
    upstreams: defaults,
    hosted: hostedDefaults,
    ...otherDefaults
  } = describeConfig(buildDefaults(registries, hasDefaultUpstream, folders));
  const changes = pickChanges(others, otherDefaults, []);
  const isHostedUnchanged =
    isDeepStrictEqual(hostedNames, [IMPLICIT_HOSTED]) &&
    isDeepStrictEqual(hosted, hostedDefaults);
  const hostedChanges = isHostedUnchanged
    ? {}
    : { hosted: pickEntries("hosted", hosted, hostedDefaults) };
  if (isWellKnown && isDeepStrictEqual(upstreams, defaults)) {
    return { ...changes, ...hostedChanges };
  }
  const unset = describeConfig(buildDefaults(registries, false, folders));
  return {
    ...changes,
    upstreams: pickEntries("upstreams", upstreams, unset["upstreams"]),
    ...hostedChanges,
  };
}

function buildDefaults(
  {
    upstreams,
    hosted,
  }: Readonly<Record<"upstreams" | "hosted", readonly string[]>>,
  hasDefaultUpstream: boolean,
  { cwd, home }: DefaultFolders,
): Config {
  const validated = validateDocument({
    upstreams: Object.fromEntries(
      upstreams.map((name, index) => [
        name,
        hasDefaultUpstream ? { default: index === 0 } : {},
      ]),
    ),
    hosted: Object.fromEntries(hosted.map((name) => [name, {}])),
  });
  if (!validated.isWhole) throw new Error("the defaults break the schema");
  const { document } = validated;
  const resolve = (path: string): string => resolvePath(path, cwd, home);
  const root = resolve(document.storage.root);
  return buildConfig(document, {
    storageRoot: root,
    files: new Map(),
    operatorToken: undefined,
    resolve,
    env: {},
  });
}

function pickEntries(
  key: "upstreams" | "hosted",
  written: unknown,
  unset: unknown,
): Record<string, unknown> {
  const defaults = isMapping(unset) ? unset : {};
  const entries = Object.entries(isMapping(written) ? written : {});
  return Object.fromEntries(
    entries.map(([name, entry]) => {
      const changes = isMapping(entry)
        ? pickChanges(entry, defaults[name], [key, name])
        : {};
      // Required with credentials.
      const access = "credentials" in changes ? { access: "shared" } : {};
      return [name, { ...changes, ...access }];
    }),
  );
}

function pickChanges(
  value: Readonly<Record<string, unknown>>,
  defaults: unknown,
  path: KeyPath,
): Record<string, unknown> {
  const known = isMapping(defaults) ? defaults : {};
  const changes: Record<string, unknown> = {};
  for (const [key, child] of Object.entries(value)) {
    const childPath = [...path, key];
    const isKnown = Object.hasOwn(known, key);
    const byDefault = isKnown
      ? known[key]
      : schemaAt(CONFIG_SCHEMA, childPath)?.default;
    if (isDeepStrictEqual(child, byDefault)) continue;
    if (!isMapping(child)) {
      changes[key] = child;
      continue;
    }
    const inner = pickChanges(child, byDefault, childPath);
    // An empty mapping may differ from an absent one if it is absent by default.
    if (!isKnown || Object.keys(inner).length > 0) changes[key] = inner;
  }
  return changes;
}
