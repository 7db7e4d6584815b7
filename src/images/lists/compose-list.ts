import { resolveVariables } from "./compose-variables.ts";
import { type Findings, quote } from "./findings.ts";
import {
  type YamlEntry,
  type YamlMap,
  type YamlTree,
  yamlText,
  yamlValue,
} from "./yaml-tree.ts";

/** Of services that extend each other. */
const MAX_EXTENDS = 32;

/** Top-level keys with content that is not fetched. */
const NOT_COVERED: Readonly<Record<string, string>> = {
  include:
    "included files are not read; use the output of 'docker compose config'",
  models: "models are not covered: only images are fetched",
};

/** A service as its `extends` complete it. */
type Service = ReadonlyMap<string, YamlEntry>;

/**
 * Reads the images that `docker compose pull` fetches when no variable is set and no profile is active.
 * Several documents are one file, in which later ones win.
 *
 * @see https://docs.docker.com/reference/compose-file/
 */
export function readComposeDocuments(
  trees: readonly YamlTree[],
  findings: Findings,
): void {
  const services = new Map<string, YamlMap>();
  for (const tree of trees) {
    if (tree.kind !== "map") continue;
    for (const [key, entry] of tree.entries) {
      const reason = NOT_COVERED[key];
      if (reason !== undefined) findings.note(entry.line, reason);
    }
    collectServices(yamlValue(tree, "services"), services, findings);
  }
  for (const [name, service] of services) {
    const complete = extend(name, services, findings, []);
    if (complete !== undefined) {
      readService(name, service.line, complete, findings);
    }
  }
}

function collectServices(
  tree: YamlTree | undefined,
  services: Map<string, YamlMap>,
  findings: Findings,
): void {
  if (tree === undefined || tree.kind === "null") return;
  if (tree.kind !== "map") {
    findings.fault(tree.line, "got no mapping; expected one key per service");
    return;
  }
  for (const [name, { line, value }] of tree.entries) {
    if (value.kind !== "map") {
      findings.fault(line, `got no mapping for ${quote(name)}; expected image`);
      continue;
    }
    const earlier = services.get(name)?.entries ?? [];
    services.set(name, {
      ...value,
      entries: new Map([...earlier, ...value.entries]),
    });
  }
}

/** @returns undefined after a fault */
function extend(
  name: string,
  services: ReadonlyMap<string, YamlMap>,
  findings: Findings,
  path: readonly string[],
): Service | undefined {
  const own = services.get(name)?.entries;
  const extended = own?.get("extends");
  if (own === undefined || extended === undefined) return own;
  const { value, line } = extended;
  const base = value.kind === "text" ? value.text : yamlText(value, "service");
  if (yamlValue(value, "file") !== undefined) {
    // The keys of the other file cannot be read; an image of its own is enough.
    if (own.has("image")) return own;
    findings.fault(
      line,
      `got ${quote(name)} extending a service of another file; expected the output of 'docker compose config'`,
    );
    return undefined;
  }
  if (base === undefined || !services.has(base)) {
    findings.fault(
      line,
      `got ${quote(name)} extending ${quote(base ?? "")}; expected a service of this file`,
    );
    return undefined;
  }
  if (path.includes(name) || path.length >= MAX_EXTENDS) {
    findings.fault(
      line,
      `got ${quote(name)} extending itself; expected no circle`,
    );
    return undefined;
  }
  const inherited = extend(base, services, findings, [...path, name]);
  return inherited && new Map([...inherited, ...own]);
}

function readService(
  name: string,
  line: number,
  service: Service,
  findings: Findings,
): void {
  const profiles = service.get("profiles")?.value;
  if (profiles?.kind === "list" && profiles.items.length > 0) {
    findings.note(
      line,
      `the service ${quote(name)} is in a profile, which is not active`,
    );
    return;
  }
  const policy = textOf(service.get("pull_policy"), findings);
  const platform = textOf(service.get("platform"), findings);
  if (policy === undefined || platform === undefined) return;
  readImage(name, line, service, { policy, platform }, findings);
  for (const [key, field] of DEPENDENT_IMAGES) {
    const items = service.get(key)?.value;
    if (items?.kind !== "list" || policy === "never") continue;
    for (const item of items.items) {
      if (key === "volumes" && yamlText(item, "type") !== "image") continue;
      const value = yamlValue(item, field);
      if (value !== undefined) addImage(value, [], findings);
    }
  }
}

/** Images that a service needs beside its own: volumes of images, and hooks that run before it. */
const DEPENDENT_IMAGES = [
  ["volumes", "source"],
  ["pre_start", "image"],
] as const;

function readImage(
  name: string,
  line: number,
  service: Service,
  pull: { readonly policy: string; readonly platform: string },
  findings: Findings,
): void {
  const image = service.get("image")?.value;
  const isBuilt = isPresent(service.get("build"));
  if (image === undefined || image.kind === "null") {
    if (isBuilt) {
      findings.note(line, `the service ${quote(name)} is built, not pulled`);
    } else if (!isPresent(service.get("provider"))) {
      findings.fault(
        line,
        `got the service ${quote(name)} without image and build; expected one of them`,
      );
    }
  } else if (pull.policy === "never" || (pull.policy === "build" && isBuilt)) {
    findings.note(
      line,
      `the service ${quote(name)} is not pulled: pull_policy is ${pull.policy}`,
    );
  } else {
    addImage(image, pull.platform === "" ? [] : [pull.platform], findings);
  }
}

function addImage(
  tree: YamlTree,
  platforms: readonly string[],
  findings: Findings,
): void {
  if (tree.kind !== "text") {
    findings.fault(tree.line, "got no text for an image; expected a reference");
    return;
  }
  const resolved = resolveVariables(tree.text);
  if (!resolved.ok) {
    findings.fault(tree.line, `${quote(tree.text)}: ${resolved.reason}`);
    return;
  }
  for (const variable of resolved.defaulted) {
    findings.note(
      tree.line,
      `the default of ${variable} is used; the environment and .env are not read`,
    );
  }
  findings.addImage(resolved.text, tree.line, platforms);
}

/** @returns an empty text for an absent key; undefined after a fault */
function textOf(
  entry: YamlEntry | undefined,
  findings: Findings,
): string | undefined {
  if (entry?.value.kind !== "text") return "";
  const resolved = resolveVariables(entry.value.text);
  if (resolved.ok) return resolved.text;
  findings.fault(entry.line, `${quote(entry.value.text)}: ${resolved.reason}`);
  return undefined;
}

function isPresent(entry: YamlEntry | undefined): boolean {
  return entry !== undefined && entry.value.kind !== "null";
}
