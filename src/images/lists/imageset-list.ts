import { type Findings, quote } from "./findings.ts";
import { parseTagRegex } from "./tag-regex.ts";
import { type YamlTree, yamlText, yamlValue } from "./yaml-tree.ts";

/** The API group of oc-mirror's configurations. */
export const IMAGESET_GROUP = "mirror.openshift.io/";

type Version = "v1" | "v2";

const VERSIONS: ReadonlyMap<string, Version> = new Map([
  ["mirror.openshift.io/v1alpha2", "v1"],
  ["mirror.openshift.io/v2alpha1", "v2"],
]);

/** What an image set holds beside the images that it names. */
const NOT_COVERED = ["platform", "operators", "helm", "samples"] as const;

/**
 * Reads `additionalImages` of an `ImageSetConfiguration`, without those that `blockedImages` match.
 *
 * @see https://github.com/openshift/oc-mirror/blob/main/internal/pkg/api/v2alpha1/type_config.go
 */
export function readImageSet(tree: YamlTree, findings: Findings): void {
  const kind = yamlText(tree, "kind") ?? "";
  if (kind !== "ImageSetConfiguration") {
    findings.fault(
      tree.line,
      `got ${quote(kind)}; expected ImageSetConfiguration`,
    );
    return;
  }
  const apiVersion = yamlText(tree, "apiVersion") ?? "";
  const version = VERSIONS.get(apiVersion);
  if (version === undefined) {
    findings.fault(
      tree.line,
      `got ${quote(apiVersion)}; expected ${[...VERSIONS.keys()].join(" or ")}`,
    );
    return;
  }
  const mirror = yamlValue(tree, "mirror");
  for (const key of NOT_COVERED) {
    const entry = mirror?.kind === "map" ? mirror.entries.get(key) : undefined;
    if (entry !== undefined && !isEmpty(entry.value)) {
      findings.note(
        entry.line,
        `mirror.${key} is not covered: only additionalImages are fetched`,
      );
    }
  }
  const blocked = readBlocked(yamlValue(mirror, "blockedImages"), findings);
  const images = yamlValue(mirror, "additionalImages");
  if (images === undefined || images.kind === "null") return;
  if (images.kind !== "list") {
    findings.fault(images.line, "got no list; expected additionalImages");
    return;
  }
  for (const image of images.items) {
    readAdditional(image, version, blocked, findings);
  }
}

function readAdditional(
  image: YamlTree,
  version: Version,
  blocked: readonly ((name: string) => boolean)[],
  findings: Findings,
): void {
  const written = yamlText(image, "name");
  if (written === undefined) {
    findings.fault(image.line, "got an image without a name; expected name");
    return;
  }
  const name = written.replace(/^docker:\/\//, "");
  const transport = /^([a-z]+):\/\//.exec(name)?.[1];
  if (transport !== undefined) {
    findings.note(
      image.line,
      `${quote(name)} is not covered: ${transport} images are not in a registry`,
    );
    return;
  }
  if (blocked.some((matches) => matches(name))) {
    findings.note(image.line, `${quote(name)} is in blockedImages`);
    return;
  }
  const hasVersion = /[@]|:[^/]*$/.test(name);
  if (version === "v2" && !hasVersion) {
    findings.fault(
      image.line,
      `got ${quote(name)}; expected a tag or a digest, as oc-mirror v2 does`,
    );
    return;
  }
  const platforms = readPlatforms(yamlValue(image, "platforms"), findings);
  if (platforms !== undefined) {
    findings.addImage(name, image.line, platforms);
  }
}

/** @returns undefined after a fault */
function readPlatforms(
  tree: YamlTree | undefined,
  findings: Findings,
): string[] | undefined {
  if (tree === undefined || tree.kind !== "list") return [];
  const platforms: string[] = [];
  for (const item of tree.items) {
    const os = yamlText(item, "os") ?? "";
    const architecture = yamlText(item, "architecture") ?? "";
    if (os === "" || architecture === "") {
      findings.fault(
        item.line,
        "got a platform without os or architecture; expected both",
      );
      return undefined;
    }
    platforms.push(`${os}/${architecture}`);
  }
  return platforms;
}

/** Blocked images are patterns of RE2 that match anywhere in a name. */
function readBlocked(
  tree: YamlTree | undefined,
  findings: Findings,
): ((name: string) => boolean)[] {
  const patterns: ((name: string) => boolean)[] = [];
  if (tree?.kind !== "list") return patterns;
  for (const item of tree.items) {
    const name = yamlText(item, "name");
    if (name === undefined) {
      findings.fault(
        item.line,
        "got a blocked image without a name; expected name",
      );
      continue;
    }
    const parsed = parseTagRegex(name);
    if (parsed.ok) patterns.push(parsed.selects);
    else findings.fault(item.line, `blockedImages: ${parsed.reason}`);
  }
  return patterns;
}

function isEmpty(tree: YamlTree): boolean {
  if (tree.kind === "list") return tree.items.length === 0;
  if (tree.kind === "map") return tree.entries.size === 0;
  return tree.kind === "null";
}
