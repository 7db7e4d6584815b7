import { writeFile } from "node:fs/promises";
import type { AfterTest } from "../after-test.ts";
import {
  readReferencePage,
  REFERENCE_PAGES,
  referencePageFile,
} from "./reference-pages.ts";

/** `npm run docs`: writes every generated page, for a commit. */
const hooks: (() => Promise<void> | void)[] = [];
const test: AfterTest = {
  after: (hook) => {
    hooks.push(hook);
  },
};

for (const page of REFERENCE_PAGES) {
  const text = await readReferencePage(page);
  await writeFile(referencePageFile(page), await page.generate(text, test));
}
for (const hook of hooks) await hook();
