import {
  diskLayout,
  layoutFolders,
} from "../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../src/storage/local/blobs/fs-blob-store.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { tempDir } from "../support/temp-dir.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { blobStoreContract } from "./blob-store-contract.ts";
import { publishFileContract } from "./publish-file-contract.ts";

async function make(test: AfterTest): Promise<BlobStore> {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const store = createFsBlobStore({ layout });
  releaseAfter(test, () => store.close());
  return store;
}

blobStoreContract("file system", make);
publishFileContract("file system", make);
