import assert from "node:assert/strict";
import { existsSync, globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { anchorsOf, relativeLinksOf } from "../../support/markdown.ts";

const PROJECT = join(import.meta.dirname, "../../..");
const PAGES = globSync(
  ["*.md", ".github/**/*.md", "{src,config,deploy,test}/**/*.md"],
  { cwd: PROJECT },
);

void describe("links between the pages", () => {
  void it("are checked in every page", () => {
    for (const page of ["README.md", "CHANGELOG.md", "src/README.md"]) {
      assert.ok(PAGES.includes(page), page);
    }
  });

  for (const page of PAGES) {
    void it(`${page} links only to files and headings that exist`, async () => {
      const text = await readFile(join(PROJECT, page), "utf8");
      for (const link of relativeLinksOf(text)) {
        const [path = "", anchor] = link.split("#");
        const file = path === "" ? page : join(page, "..", path);
        assert.ok(existsSync(join(PROJECT, file)), link);
        if (anchor === undefined) continue;
        const target = await readFile(join(PROJECT, file), "utf8");
        assert.ok(anchorsOf(target).includes(anchor), link);
      }
    });
  }
});
