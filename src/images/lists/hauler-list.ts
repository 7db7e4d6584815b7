import type { Findings } from "./findings.ts";
import { quote } from "./findings.ts";
import {
  type YamlMap,
  type YamlTree,
  yamlText,
  yamlValue,
} from "./yaml-tree.ts";

/** The API group of hauler's manifests. */
export const HAULER_GROUP = "content.hauler.cattle.io/";
const COLLECTION_GROUP = "collection.hauler.cattle.io/";

/** Versions whose `Images` have the same form. */
const VERSIONS: ReadonlySet<string> = new Set(["v1", "v1alpha1"]);

const PLATFORM_ANNOTATION = "hauler.dev/platform";
const REGISTRY_ANNOTATION = "hauler.dev/registry";

/** Settings of an image that concern its verification or its name in hauler's own store. */
const IGNORED_SETTINGS: readonly RegExp[] = [
  /^key$/,
  /^use-tlog-verify$/,
  /^certificate-/,
  /^rewrite$/,
  /^exclude-extras$/,
];

/** Returns whether an API version is one of hauler's. */
export function isHaulerVersion(apiVersion: string): boolean {
  return (
    apiVersion.startsWith(HAULER_GROUP) ||
    apiVersion.startsWith(COLLECTION_GROUP)
  );
}

/**
 * Reads the images of a document of a hauler manifest. Charts and files are named as not covered.
 *
 * @see https://docs.hauler.dev/docs/guides-references/hauler-content/images
 */
export function readHaulerDocument(tree: YamlTree, findings: Findings): void {
  const apiVersion = yamlText(tree, "apiVersion") ?? "";
  const kind = yamlText(tree, "kind") ?? "";
  const version = apiVersion.slice(apiVersion.indexOf("/") + 1);
  if (!isHaulerVersion(apiVersion)) {
    findings.fault(
      tree.line,
      `got a document of ${quote(apiVersion)}; expected ${HAULER_GROUP}v1 in a manifest of hauler`,
    );
  } else if (kind !== "Images") {
    findings.note(
      tree.line,
      `${kind} are not covered: only Images of hauler are fetched`,
    );
  } else if (!VERSIONS.has(version)) {
    findings.fault(tree.line, `got ${quote(apiVersion)}; expected v1`);
  } else {
    readImages(tree, findings);
  }
}

function readImages(tree: YamlTree, findings: Findings): void {
  const images = yamlValue(tree, "spec", "images");
  if (images === undefined || images.kind === "null") return;
  if (images.kind !== "list") {
    findings.fault(images.line, "got no list under spec.images; expected one");
    return;
  }
  const annotations = yamlValue(tree, "metadata", "annotations");
  const registry = yamlText(annotations, REGISTRY_ANNOTATION) ?? "";
  const platform = yamlText(annotations, PLATFORM_ANNOTATION) ?? "";
  for (const image of images.items) {
    const name = yamlText(image, "name");
    if (image.kind !== "map" || name === undefined) {
      findings.fault(image.line, "got an image without a name; expected name");
      continue;
    }
    readImage(image, name, { registry, platform }, findings);
  }
}

function readImage(
  image: YamlMap,
  name: string,
  defaults: { readonly registry: string; readonly platform: string },
  findings: Findings,
): void {
  if (yamlText(image, "local") === "true") {
    findings.note(
      image.line,
      `${quote(name)} is not covered: local images are in a Docker daemon`,
    );
    return;
  }
  for (const [key, { line }] of image.entries) {
    if (IGNORED_SETTINGS.some((pattern) => pattern.test(key))) {
      findings.note(line, `${key} of ${quote(name)} is not used`);
    }
  }
  const platform = yamlText(image, "platform") ?? "";
  const chosen = platform === "" ? defaults.platform : platform;
  findings.addImage(
    relocate(name, defaults.registry),
    image.entries.get("name")?.line ?? image.line,
    chosen === "" ? [] : [chosen],
  );
}

/** Puts the default registry of a document before a name without one, as hauler does. */
function relocate(name: string, registry: string): string {
  if (registry === "") return name;
  const slashAt = name.indexOf("/");
  const first = slashAt === -1 ? "" : name.slice(0, slashAt);
  if (/[.:]/.test(first) || first === "localhost") return name;
  return slashAt === -1 ? `${registry}/library/${name}` : `${registry}/${name}`;
}
