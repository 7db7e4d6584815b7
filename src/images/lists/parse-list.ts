import { completeList, type DraftList } from "./draft-list.ts";
import { readComposeDocuments } from "./compose-list.ts";
import { Findings } from "./findings.ts";
import { readHaulerDocument } from "./hauler-list.ts";
import { readImageSet } from "./imageset-list.ts";
import { readKubernetesDocument } from "./kubernetes-list.ts";
import type { ListFormat, ListText, ParsedList } from "./list-entry.ts";
import { readPlainList } from "./plain-list.ts";
import { looksLikeYaml, recogniseTree } from "./recognise-list.ts";
import { readSkopeoList } from "./skopeo-list.ts";
import { readYamlTrees, type YamlTree } from "./yaml-tree.ts";

/** A megabyte of YAML takes about a second and 100 MB to parse. */
export const MAX_LIST_BYTES = 4 * 2 ** 20;

const KINDS =
  "the YAML of skopeo sync, Kubernetes manifests, a compose file, hauler Images, an ImageSetConfiguration, or one reference per line (--format forces one of them)";

/**
 * Parses a list of references in the grammar that was asked for, or else in the one that its content
 * shows. What cannot be used is a fault; the rest of the list is still used.
 *
 * Import this module when a list is parsed, not before: it loads the YAML parser and RE2. A server calls
 * `parseListAside` instead.
 */
export function parseList(list: ListText): ParsedList {
  return completeList(draftList(list));
}

/** Parses a list into data that can be sent to another thread. */
export function draftList(list: ListText): DraftList {
  const findings = new Findings(list.name);
  const bytes = Buffer.byteLength(list.text);
  if (bytes > MAX_LIST_BYTES) {
    findings.fault(
      1,
      `got ${bytes} bytes; expected several lists of at most ${MAX_LIST_BYTES} bytes each`,
    );
  } else if (list.text.includes("\0")) {
    findings.fault(
      1,
      "got NUL characters; expected UTF-8 (PowerShell writes UTF-16 with >; use Out-File -Encoding utf8)",
    );
  } else {
    // Editors of some systems begin a file with a byte order mark.
    readList(list.text.replace(/^\uFEFF/, ""), list.format, findings);
  }
  return findings.draft();
}

function readList(
  text: string,
  format: ListFormat | undefined,
  findings: Findings,
): void {
  if (format === "plain" || (format === undefined && !looksLikeYaml(text))) {
    readPlainList(text, findings);
    return;
  }
  const trees: YamlTree[] = [];
  let isWhole = true;
  for (const tree of readYamlTrees(text, ({ line, message }) => {
    isWhole = false;
    findings.fault(line, isTemplate(text, line) ? TEMPLATE : message);
  })) {
    if (tree.kind !== "null") trees.push(tree);
  }
  const [first] = trees;
  if (first === undefined) return;
  const grammar = format ?? recogniseTree(first);
  if (grammar !== undefined) readTrees(grammar, trees, findings);
  else if (isWhole)
    findings.fault(first.line, `got another kind of file; expected ${KINDS}`);
}

const TEMPLATE =
  "got a template; expected what it renders, as printed by 'helm template'";

/** Whether the line has the braces of Go's templates, which charts consist of. */
function isTemplate(text: string, line: number): boolean {
  return text.split(/\r\n|[\n\r]/)[line - 1]?.includes("{{") === true;
}

function readTrees(
  grammar: ListFormat,
  trees: readonly YamlTree[],
  findings: Findings,
): void {
  switch (grammar) {
    case "skopeo":
      readSingle(trees, readSkopeoList, findings);
      break;
    case "imageset":
      readSingle(trees, readImageSet, findings);
      break;
    case "kubernetes":
      for (const tree of trees) readKubernetesDocument(tree, findings);
      break;
    case "hauler":
      for (const tree of trees) readHaulerDocument(tree, findings);
      break;
    case "compose":
      readComposeDocuments(trees, findings);
      break;
    case "plain":
      break;
  }
}

/** Tools that read one document ignore the others silently. */
function readSingle(
  trees: readonly YamlTree[],
  read: (tree: YamlTree, findings: Findings) => void,
  findings: Findings,
): void {
  const [first, second] = trees;
  if (first !== undefined) read(first, findings);
  if (second !== undefined) {
    findings.fault(second.line, "got a second document; expected one per list");
  }
}
