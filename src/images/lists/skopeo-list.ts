import { parseDigest } from "../../oci/digest.ts";
import { parseTag } from "../../oci/reference.ts";
import { type Findings, quote } from "./findings.ts";
import { isRepository } from "./list-reference.ts";
import { EVERY_TAG, type TagRule } from "./tag-rule.ts";
import type { YamlMap, YamlTree } from "./yaml-tree.ts";

/** The keys of a registry that select images. */
export const SKOPEO_IMAGE_KEYS = [
  "images",
  "images-by-tag-regex",
  "images-by-semver",
] as const;

/** Keys that the upstreams of the configuration have instead. */
const CONNECTION_KEYS: Readonly<Record<string, string>> = {
  credentials: "upstreams.<registry>.credentials",
  "tls-verify": "upstreams.<registry>.tls",
  "cert-dir": "upstreams.<registry>.tls",
};

/**
 * Reads the YAML of `skopeo sync --src yaml`. Where skopeo rejects the whole file or all patterns of a
 * registry because of one entry, only that entry is rejected.
 *
 * @see https://github.com/containers/skopeo/blob/main/docs/skopeo-sync.1.md
 */
export function readSkopeoList(tree: YamlTree, findings: Findings): void {
  if (tree.kind !== "map") {
    findings.fault(tree.line, "got no mapping; expected one key per registry");
    return;
  }
  for (const [registry, { line, value }] of tree.entries) {
    if (value.kind === "map") {
      readRegistry(registry, value, line, findings);
    } else if (value.kind === "null") {
      findings.note(line, `no images for the registry ${quote(registry)}`);
    } else {
      findings.fault(
        line,
        `got ${describe(value)} under the registry ${quote(registry)}; expected ${SKOPEO_IMAGE_KEYS.join(", ")}`,
      );
    }
  }
}

function readRegistry(
  registry: string,
  tree: YamlMap,
  line: number,
  findings: Findings,
): void {
  let count = 0;
  for (const [key, entry] of tree.entries) {
    switch (key) {
      case "images":
        count += readImages(registry, entry.value, findings);
        break;
      case "images-by-tag-regex":
        count += readFilters(registry, entry.value, "pattern", findings);
        break;
      case "images-by-semver":
        count += readFilters(registry, entry.value, "constraint", findings);
        break;
      default: {
        const instead = CONNECTION_KEYS[key];
        findings.note(
          entry.line,
          instead === undefined
            ? `skopeo ignores the key ${quote(key)}; so does this list`
            : `${key} is not used; expected ${instead} in the configuration`,
        );
      }
    }
  }
  if (count === 0) {
    findings.note(line, `no images for the registry ${quote(registry)}`);
  }
}

/** @returns the number of repositories that the list names, valid or not */
function readImages(
  registry: string,
  tree: YamlTree,
  findings: Findings,
): number {
  return eachRepository(registry, tree, findings, (repository, line, value) => {
    if (value.kind === "null" || isEmptyList(value)) {
      findings.addTags(repository, line, EVERY_TAG);
    } else if (value.kind === "list") {
      for (const item of value.items) readTag(repository, item, findings);
    } else {
      findings.fault(
        line,
        `got ${describe(value)} for ${quote(repository)}; expected a list of tags and digests, or [] for every tag`,
      );
    }
  });
}

function readTag(repository: string, item: YamlTree, findings: Findings): void {
  const text = item.kind === "text" ? item.text : "";
  if (parseDigest(text) !== undefined) {
    findings.addReference(`${repository}@${text}`, item.line);
  } else if (parseTag(text) !== undefined) {
    findings.addReference(`${repository}:${text}`, item.line);
  } else {
    findings.fault(
      item.line,
      `got ${describe(item)} for ${quote(repository)}; expected a tag or a digest`,
    );
  }
}

function readFilters(
  registry: string,
  tree: YamlTree,
  kind: Exclude<TagRule["kind"], "every">,
  findings: Findings,
): number {
  return eachRepository(registry, tree, findings, (repository, line, value) => {
    if (value.kind === "list" || value.kind === "map") {
      findings.fault(
        line,
        `got ${describe(value)} for ${quote(repository)}; expected one text`,
      );
      return;
    }
    const text = value.kind === "text" ? value.text : "";
    findings.addTags(repository, line, { kind, text });
  });
}

function eachRepository(
  registry: string,
  tree: YamlTree,
  findings: Findings,
  read: (repository: string, line: number, value: YamlTree) => void,
): number {
  if (tree.kind === "null") return 0;
  if (tree.kind !== "map") {
    findings.fault(
      tree.line,
      `got ${describe(tree)}; expected one key per repository`,
    );
    return 1;
  }
  for (const [name, { line, value }] of tree.entries) {
    const repository = `${registry}/${name}`;
    if (isRepository(repository)) {
      read(repository, line, value);
    } else {
      findings.fault(
        line,
        `got ${quote(repository)}; expected REGISTRY/REPOSITORY in lower case, without a tag`,
      );
    }
  }
  return tree.entries.size;
}

function isEmptyList(tree: YamlTree): boolean {
  return tree.kind === "list" && tree.items.length === 0;
}

function describe(tree: YamlTree): string {
  if (tree.kind === "text") return quote(tree.text);
  return NAMES[tree.kind];
}

const NAMES = { null: "nothing", list: "a list", map: "a mapping" } as const;
