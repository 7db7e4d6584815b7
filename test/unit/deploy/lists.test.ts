import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parseList } from "../../../src/images/lists/parse-list.ts";

const FOLDER = join(import.meta.dirname, "../../../deploy/lists");

/** What each example selects: references, and tags that it accepts and rejects by repository. */
const WANTED: Readonly<
  Record<
    string,
    {
      readonly references: readonly string[];
      readonly tags: Readonly<
        Record<string, { readonly yes: string; readonly no: string }>
      >;
    }
  >
> = {
  "images.txt": {
    references: [
      "alpine:3",
      "docker.io/library/nginx:1.29-alpine",
      "quay.io/prometheus/prometheus:v3.5.0",
      "registry.k8s.io/pause:3.10",
    ],
    tags: {},
  },
  "sync.yaml": {
    references: [
      "docker.io/library/alpine:3",
      "docker.io/library/alpine:edge",
      "quay.io/prometheus/prometheus:v3.5.0",
    ],
    tags: {
      "docker.io/library/nginx": { yes: "1.29-alpine-slim", no: "1.28-alpine" },
      "docker.io/library/redis": { yes: "8.2.1", no: "9.0.0" },
    },
  },
};

void describe("deploy/lists", () => {
  void it("has the lists that this test reads", async () => {
    const files = (await readdir(FOLDER)).filter(
      (name) => name !== "README.md",
    );
    assert.deepEqual(files.toSorted(), Object.keys(WANTED));
  });

  for (const [name, wanted] of Object.entries(WANTED)) {
    void it(`${name} is recognised and selects what it says`, async () => {
      const text = await readFile(join(FOLDER, name), "utf8");
      const { entries, faults, notes } = parseList({ name, text });
      assert.deepEqual([faults, notes], [[], []]);
      assert.deepEqual(
        entries.flatMap((one) => (one.kind === "reference" ? one.ref : [])),
        wanted.references,
      );
      const tags = Object.entries(wanted.tags);
      assert.equal(entries.length - wanted.references.length, tags.length);
      for (const [repository, { yes, no }] of tags) {
        const entry = entries.find(
          (one) => one.kind === "tags" && one.repository === repository,
        );
        assert.ok(entry?.kind === "tags", repository);
        assert.deepEqual(
          [entry.selects(yes), entry.selects(no)],
          [true, false],
        );
      }
    });
  }
});
