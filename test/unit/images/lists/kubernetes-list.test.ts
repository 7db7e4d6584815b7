import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { outlineList } from "../../../support/list-outline.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

const CASES: readonly {
  readonly name: string;
  readonly list: string;
  readonly entries: readonly string[];
  readonly faults?: readonly string[];
  readonly notes?: readonly string[];
}[] = [
  {
    name: "reads the containers of a pod, of every kind",
    list: `apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  initContainers:
    - {name: i, image: busybox:1.28}
  containers:
    - name: nginx
      image: nginx:1.14.2
      ports: [{containerPort: 80}]
    - name: pinned
      image: registry.k8s.io/pause:3.9@${DIGEST}
  ephemeralContainers:
    - {name: debugger, image: "busybox:1.36"}
  volumes:
    - name: volume
      image:
        reference: quay.io/crio/artifact:v2
        pullPolicy: IfNotPresent
    - name: other
      configMap: {name: image}
`,
    entries: [
      "6 busybox:1.28",
      "9 nginx:1.14.2",
      `12 registry.k8s.io/pause@${DIGEST}`,
      "14 busybox:1.36",
      "18 quay.io/crio/artifact:v2",
    ],
  },
  {
    name: "reads several documents, empty ones between them",
    list: `# generated
---
---
apiVersion: apps/v1
kind: Deployment
spec: {template: {spec: {containers: [{image: "a:1"}]}}}
---
apiVersion: batch/v1
kind: CronJob
spec:
  jobTemplate:
    spec:
      template:
        spec:
          containers:
            - image: b:1
...
---
apiVersion: v1
kind: ConfigMap
data: {image: "not:this", containers: "- image: nor:this"}
---
apiVersion: v1
kind: Service
spec: {selector: {app: a}}
`,
    entries: ["6 a:1", "16 b:1"],
  },
  {
    name: "reads lists of objects, nested too",
    list: `apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: PodList
    items:
      - spec: {containers: [{image: a:1}]}
        status:
          containerStatuses: [{image: "docker.io/library/a:1"}]
  - {apiVersion: apps/v1, kind: DaemonSet, spec: {template: {spec: {containers: [{image: b:1}]}}}}
`,
    entries: ["7 a:1", "10 b:1"],
  },
  {
    name: "reads pod templates in custom resources",
    list: `apiVersion: argoproj.io/v1alpha1
kind: Rollout
spec:
  strategy: {canary: {steps: []}}
  template:
    spec: {containers: [{image: a:1}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  versions:
    - schema:
        openAPIV3Schema:
          properties:
            containers: {type: array, items: {properties: {image: {type: string}}}}
`,
    entries: ["6 a:1"],
  },
  {
    name: "reads JSON as kubectl prints it",
    list: `{
    "apiVersion": "v1",
    "items": [
        {"kind": "Pod", "spec": {"containers": [{"image": "a:1"}]}}
    ],
    "kind": "List"
}`,
    entries: ["4 a:1"],
  },
  {
    name: "skips containers without an image",
    list: "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: [{name: a}, {name: b, image: ''}, {name: c, image: ~}, {image: d:1}]}}}",
    entries: ["3 d:1"],
  },
  {
    name: "rejects an image that is not a reference, and reads the others",
    list: "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: $(IMAGE)\n  - image: a:1",
    entries: ["6 a:1"],
    faults: [
      '5 got "$(IMAGE)"; expected [REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case',
    ],
  },
  {
    name: "notes an image that is not a text",
    list: "apiVersion: x/v1\nkind: Custom\nspec: {containers: [{image: {repository: a, tag: 1}}]}",
    entries: [],
    notes: [
      "3 image is not a text, so it is not read",
      "1 the list names no image",
    ],
  },
  {
    name: "rejects a Kustomization, which needs its tool",
    list: "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages: [{name: a, newTag: '1'}]",
    entries: [],
    faults: [
      "1 got a Kustomization; expected the manifests that `kubectl kustomize DIR` prints",
    ],
  },
  {
    name: "keeps what was read before a document with an error",
    list: "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: a:1}]}\n---\na: b: c\n---\napiVersion: v1\nkind: Pod\nspec: {containers: [{image: b:1}]}",
    entries: ["3 a:1"],
    faults: [
      "5 got a mapping inside a value; expected one `key: value` per line (quote a text with * ! or a colon)",
    ],
  },
];

void describe("Kubernetes lists", () => {
  for (const { name, list, entries, faults = [], notes = [] } of CASES) {
    void it(name, () => {
      assert.deepEqual(outlineList(list), { entries, faults, notes });
    });
  }
});
