import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  readReferencePage,
  REFERENCE_PAGES,
} from "../../support/reference/reference-pages.ts";

void describe("the reference pages", () => {
  for (const page of REFERENCE_PAGES) {
    void it(`${page.path} is what npm run docs generates`, async (test) => {
      const text = await readReferencePage(page);
      const generated = await page.generate(text, test);
      assert.ok(text === generated, "run npm run docs and commit the result");
    });
  }
});
