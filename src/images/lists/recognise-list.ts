import { isHaulerVersion } from "./hauler-list.ts";
import { IMAGESET_GROUP } from "./imageset-list.ts";
import type { ListFormat } from "./list-entry.ts";
import { SKOPEO_IMAGE_KEYS } from "./skopeo-list.ts";
import { type YamlTree, yamlText, yamlValue } from "./yaml-tree.ts";

/** A line that begins YAML or JSON: a marker, a bracket, a quote, a dash, or a key with its colon. */
const YAML_LINE = /^(?:---|%YAML|[{["'&!?]|-(?:\s|$)|[^#]*:(?:\s|$))/;

/** Other files have an `images` under a key too, but not under the name of a registry. */
const REGISTRY_KEY = /[.:]|^localhost(?:\/|$)/;

/** Returns whether the first line with content cannot be a reference, but begins YAML or JSON. */
export function looksLikeYaml(text: string): boolean {
  const line = /^(?!\s*(?:#|$)).*$/m.exec(text)?.[0] ?? "";
  return YAML_LINE.test(line.trim());
}

/** Returns the grammar of a YAML document, as its keys show it. */
export function recogniseTree(tree: YamlTree): ListFormat | undefined {
  if (tree.kind !== "map") return undefined;
  const apiVersion = yamlText(tree, "apiVersion") ?? "";
  if (isHaulerVersion(apiVersion)) return "hauler";
  if (apiVersion.startsWith(IMAGESET_GROUP)) return "imageset";
  if (apiVersion !== "" && tree.entries.has("kind")) return "kubernetes";
  if (yamlValue(tree, "services")?.kind === "map") return "compose";
  const hasImages = [...tree.entries].some(
    ([key, { value }]) =>
      REGISTRY_KEY.test(key) &&
      SKOPEO_IMAGE_KEYS.some((name) => yamlValue(value, name) !== undefined),
  );
  return hasImages ? "skopeo" : undefined;
}
