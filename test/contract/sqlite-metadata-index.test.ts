import { join } from "node:path";
import { openSqliteIndex } from "../../src/cache/open-sqlite-index.ts";
import { releaseAfter } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { tempDir } from "../support/temp-dir.ts";
import { metadataIndexContract } from "./metadata-index-contract.ts";

metadataIndexContract("SQLite", async (test) => {
  const { index } = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => index.close());
  return index;
});
