import type { Findings } from "./findings.ts";
import { type YamlTree, yamlText, yamlValue } from "./yaml-tree.ts";

/** The lists of containers in a pod's specification. */
const CONTAINER_KEYS: ReadonlySet<string> = new Set([
  "containers",
  "initContainers",
  "ephemeralContainers",
]);

/**
 * Reads the images of every pod template in a document, wherever it is nested: in workloads, in lists of
 * them, and in custom resources that contain one.
 *
 * @see https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
 */
export function readKubernetesDocument(
  tree: YamlTree,
  findings: Findings,
): void {
  if (yamlText(tree, "kind") === "Kustomization") {
    findings.fault(
      tree.line,
      "got a Kustomization; expected the manifests that `kubectl kustomize DIR` prints",
    );
    return;
  }
  readPods(tree, findings);
}

function readPods(tree: YamlTree, findings: Findings): void {
  if (tree.kind === "list") {
    for (const item of tree.items) readPods(item, findings);
  }
  if (tree.kind !== "map") return;
  for (const [key, { value }] of tree.entries) {
    if (value.kind === "list" && CONTAINER_KEYS.has(key)) {
      for (const item of value.items) readImage(item, ["image"], findings);
    }
    if (value.kind === "list" && key === "volumes") {
      for (const item of value.items) {
        readImage(item, ["image", "reference"], findings);
      }
    }
    readPods(value, findings);
  }
}

function readImage(
  container: YamlTree,
  keys: readonly string[],
  findings: Findings,
): void {
  const value = yamlValue(container, ...keys);
  if (value === undefined || value.kind === "null") return;
  if (value.kind !== "text") {
    findings.note(
      value.line,
      `${keys.join(".")} is not a text, so it is not read`,
    );
  } else if (value.text !== "") {
    // An empty image is one that a webhook or an operator fills in.
    findings.addImage(value.text, value.line);
  }
}
