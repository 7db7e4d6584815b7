import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { outlineList } from "../../../support/list-outline.ts";

const HEAD = "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/";

void describe("image sets of oc-mirror", () => {
  void it("reads additional images and names the rest as not covered", () => {
    const digest = `sha256:${"a".repeat(64)}`;
    const outline = outlineList(`${HEAD}v2alpha1
mirror:
  platform:
    channels:
      - name: stable-4.18
  operators:
    - catalog: registry.redhat.io/redhat/redhat-operator-index:v4.18
  helm: {}
  samples: []
  additionalImages:
    - name: registry.redhat.io/ubi9/ubi:latest
    - name: quay.io/corp/multi:1
      targetRepo: elsewhere
      platforms:
        - os: linux
          architecture: amd64
        - {os: linux, architecture: arm64}
    - name: docker://quay.io/corp/tagged:1@${digest}
    - name: oci:///var/images/a
    - name: quay.io/corp/untagged
    - name: quay.io/corp/os:1
      platforms: [{os: linux}]
    - {}
    - name: quay.io/blocked/image:1
    - name: quay.io/corp/rc:1.0-rc2
  blockedImages:
    - name: quay\\.io/blocked/
    - name: -rc\\d$
    - name: (
    - {}
`);
    assert.deepEqual(outline, {
      entries: [
        "12 registry.redhat.io/ubi9/ubi:latest",
        "13 quay.io/corp/multi:1 linux/amd64 linux/arm64",
        `19 quay.io/corp/tagged@${digest}`,
      ],
      faults: [
        "30 blockedImages: got a pattern with an error (missing closing ): `(`); expected the syntax of RE2",
        "31 got a blocked image without a name; expected name",
        '21 got "quay.io/corp/untagged"; expected a tag or a digest, as oc-mirror v2 does',
        "23 got a platform without os or architecture; expected both",
        "24 got an image without a name; expected name",
      ],
      notes: [
        "4 mirror.platform is not covered: only additionalImages are fetched",
        "7 mirror.operators is not covered: only additionalImages are fetched",
        '20 "oci:///var/images/a" is not covered: oci images are not in a registry',
        '25 "quay.io/blocked/image:1" is in blockedImages',
        '26 "quay.io/corp/rc:1.0-rc2" is in blockedImages',
      ],
    });
  });

  void it("takes the tag latest in a configuration of v1", () => {
    const outline = outlineList(`${HEAD}v1alpha2
storageConfig: {local: {path: ./x}}
mirror: {additionalImages: [{name: quay.io/a/b}]}
`);
    assert.deepEqual(outline, {
      entries: ["4 quay.io/a/b"],
      faults: [],
      notes: [],
    });
  });

  void it("rejects other kinds and versions", () => {
    for (const [list, fault] of [
      [
        "kind: DeleteImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\ndelete: {additionalImages: [{name: 'a:1'}]}",
        '1 got "DeleteImageSetConfiguration"; expected ImageSetConfiguration',
      ],
      [
        `${HEAD}v3\nmirror: {additionalImages: [{name: 'a:1'}]}`,
        '1 got "mirror.openshift.io/v3"; expected mirror.openshift.io/v1alpha2 or mirror.openshift.io/v2alpha1',
      ],
      [
        `${HEAD}v2alpha1\nmirror: {additionalImages: {name: 'a:1'}}`,
        "3 got no list; expected additionalImages",
      ],
    ] as const) {
      assert.deepEqual(outlineList(list), {
        entries: [],
        faults: [fault],
        notes: [],
      });
    }
  });
});
