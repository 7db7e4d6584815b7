import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { outlineList } from "../../../support/list-outline.ts";

void describe("hauler manifests", () => {
  void it("reads images and names charts and files as not covered", () => {
    const digest = `sha256:${"7".repeat(64)}`;
    const outline = outlineList(`apiVersion: content.hauler.cattle.io/v1
kind: Images
metadata:
  name: hauler-content-images-example
spec:
  images:
    - name: ghcr.io/hauler-dev/library/busybox
    - name: ghcr.io/hauler-dev/library/busybox:stable
      platform: linux/amd64
    - name: gcr.io/distroless/base@${digest}
    - name: ghcr.io/kubewarden/audit-scanner:v1.30.0
      certificate-oidc-issuer: https://token.example.com
---
apiVersion: content.hauler.cattle.io/v1
kind: Charts
spec: {charts: [{name: rancher, repoURL: https://charts.example.com}]}
---
apiVersion: content.hauler.cattle.io/v1
kind: Files
spec: {files: [{path: https://get.example.com}]}
`);
    assert.deepEqual(outline, {
      entries: [
        "7 ghcr.io/hauler-dev/library/busybox",
        "8 ghcr.io/hauler-dev/library/busybox:stable linux/amd64",
        `10 gcr.io/distroless/base@${digest}`,
        "11 ghcr.io/kubewarden/audit-scanner:v1.30.0",
      ],
      faults: [],
      notes: [
        '12 certificate-oidc-issuer of "ghcr.io/kubewarden/audit-scanner:v1.30.0" is not used',
        "14 Charts are not covered: only Images of hauler are fetched",
        "18 Files are not covered: only Images of hauler are fetched",
      ],
    });
  });

  void it("applies the registry and the platform of the annotations", () => {
    const outline = outlineList(`apiVersion: content.hauler.cattle.io/v1alpha1
kind: Images
metadata:
  annotations:
    hauler.dev/platform: linux/arm64
    hauler.dev/registry: registry.corp:5000
spec:
  images:
    - name: busybox
    - name: rancher/shell:v0.1.22
      platform: linux/amd64
    - name: quay.io/a/b:1
    - name: localhost/c:1
    - {name: 'in-daemon:1', local: true}
    - {name: ''}
    - plain:1
`);
    assert.deepEqual(outline, {
      entries: [
        "9 registry.corp:5000/library/busybox linux/arm64",
        "10 registry.corp:5000/rancher/shell:v0.1.22 linux/amd64",
        "12 quay.io/a/b:1 linux/arm64",
        "13 localhost/c:1 linux/arm64",
      ],
      faults: [
        '15 got "registry.corp:5000/library/"; expected [REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case',
        "16 got an image without a name; expected name",
      ],
      notes: [
        '14 "in-daemon:1" is not covered: local images are in a Docker daemon',
      ],
    });
  });

  void it("rejects versions and documents that it does not know", () => {
    const outline = outlineList(`apiVersion: content.hauler.cattle.io/v9
kind: Images
spec: {images: [{name: 'a:1'}]}
---
apiVersion: v1
kind: Pod
---
apiVersion: content.hauler.cattle.io/v1
kind: Images
spec: {images: {name: 'a:1'}}
`);
    assert.deepEqual(outline, {
      entries: [],
      faults: [
        '1 got "content.hauler.cattle.io/v9"; expected v1',
        '5 got a document of "v1"; expected content.hauler.cattle.io/v1 in a manifest of hauler',
        "10 got no list under spec.images; expected one",
      ],
      notes: [],
    });
  });
});
