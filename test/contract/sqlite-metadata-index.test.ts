import { join } from "node:path";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import { openSqliteIndex } from "../../src/storage/local/index/open-sqlite-index.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { tempDir } from "../support/temp-dir.ts";
import { hostedIndexContract } from "./hosted-index-contract.ts";
import { metadataIndexContract } from "./metadata-index-contract.ts";
import { recordsContract } from "./records-contract.ts";
import { rootIndexContract } from "./root-index-contract.ts";

async function make(test: AfterTest): Promise<MetadataIndex> {
  const { index } = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => index.close());
  return index;
}

metadataIndexContract("SQLite", make);
rootIndexContract("SQLite", make);
recordsContract("SQLite", make);
hostedIndexContract("SQLite", make);
