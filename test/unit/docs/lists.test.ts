import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { LIST_FORMATS } from "../../../src/images/lists/list-entry.ts";
import { outlineList } from "../../support/list-outline.ts";

const PAGE = join(import.meta.dirname, "../../../deploy/lists/README.md");

void describe("deploy/lists/README.md", () => {
  void it("names every format", async () => {
    const text = await readFile(PAGE, "utf8");
    for (const format of LIST_FORMATS) {
      assert.match(text, new RegExp(`^\\| \`${format}\` `, "m"));
    }
  });

  void it("has examples that are read as it says", async () => {
    const text = await readFile(PAGE, "utf8");
    const tags = "1.29 1.29.4-alpine 3.20 3.21.1 3.22 4.1 4.0.0-rc.1".split(
      " ",
    );
    const outlines = Array.from(
      text.matchAll(/^```yaml\n(.*?)^```$/gms),
      ([, example = ""]) => outlineList(example, { tags }),
    );
    assert.deepEqual(
      outlines.flatMap(({ faults }) => faults),
      [],
    );
    assert.deepEqual(
      outlines.map(({ entries }) =>
        entries.map((entry) => entry.replace(/^\d+ /, "")),
      ),
      [
        [
          `docker.io/library/busybox: ${tags.join(" ")}`,
          "library/redis:8.0",
          `library/redis@sha256:${"0".repeat(32)}${"1".repeat(32)}`,
          "docker.io/library/nginx: 1.29.4-alpine",
          "docker.io/library/alpine: 3.20 3.22 4.1",
        ],
        [
          "registry.corp/team/app:1 linux/amd64",
          "quay.io/prometheus/prometheus:v3.5.0 linux/arm64",
        ],
        ["registry.redhat.io/ubi9/ubi:latest linux/amd64"],
      ],
    );
  });
});
