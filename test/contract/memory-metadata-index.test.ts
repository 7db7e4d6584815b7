import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { MemoryMetadataIndex } from "../support/memory-index/memory-metadata-index.ts";
import { hostedIndexContract } from "./hosted-index-contract.ts";
import { metadataIndexContract } from "./metadata-index-contract.ts";
import { recordsContract } from "./records-contract.ts";
import { rootIndexContract } from "./root-index-contract.ts";

function make(test: AfterTest): Promise<MetadataIndex> {
  const index = new MemoryMetadataIndex();
  releaseAfter(test, () => index.close());
  return Promise.resolve(index);
}

metadataIndexContract("in memory", make);
rootIndexContract("in memory", make);
recordsContract("in memory", make);
hostedIndexContract("in memory", make);
