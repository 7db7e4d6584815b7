import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { outlineList } from "../../../support/list-outline.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

void describe("plain lists", () => {
  void it("says where patterns of tags belong", () => {
    assert.deepEqual(outlineList("alpine\nalpine:3.*").faults, [
      '2 got "alpine:3.*"; expected [REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case; patterns of tags belong in a list in the YAML of skopeo sync, as images-by-tag-regex or images-by-semver',
    ]);
  });

  void it("reads one reference a line, with comments", () => {
    const outline = outlineList(
      [
        "# images of the site",
        "",
        "alpine:3",
        "  busybox   # the newest",
        "docker.io/library/redis:7#x",
        "ghcr.io/a/b:1\r",
        `registry.corp:5000/team/app:1.0@${DIGEST}`,
        `quay.io/a/b@${DIGEST}`,
        "alpine 3",
        "Alpine:3",
        "docker://alpine:3",
      ].join("\n"),
    );
    assert.deepEqual(outline, {
      entries: [
        "3 alpine:3",
        "4 busybox",
        "6 ghcr.io/a/b:1",
        `7 registry.corp:5000/team/app@${DIGEST}`,
        `8 quay.io/a/b@${DIGEST}`,
      ],
      faults: [
        "5 docker.io/library/redis:7#x",
        "9 alpine 3",
        "10 Alpine:3",
        "11 docker://alpine:3",
      ].map((line) => {
        const [number, ...text] = line.split(" ");
        return `${number} got "${text.join(" ")}"; expected [REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case`;
      }),
      notes: [],
    });
  });

  void it("notes that a list without lines names nothing", () => {
    for (const text of ["", "\n\n", "# nothing yet\n", "\uFEFF"]) {
      assert.deepEqual(outlineList(text), {
        entries: [],
        faults: [],
        notes: ["1 the list names no image"],
      });
    }
  });

  void it("rejects the identifier of a local image, which no registry has", () => {
    const { entries, faults } = outlineList(
      `${"a".repeat(64)}\n${"a".repeat(63)}`,
    );
    assert.deepEqual(entries, [`2 ${"a".repeat(63)}`]);
    assert.equal(faults.length, 1);
  });

  void it("numbers the lines of files from every system", () => {
    assert.deepEqual(outlineList("a\r\nb\rc\nd").entries, [
      "1 a",
      "2 b",
      "3 c",
      "4 d",
    ]);
  });
});
