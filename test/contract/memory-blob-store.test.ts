import { createMemoryBlobStore } from "../support/memory-blob-store.ts";
import { blobStoreContract } from "./blob-store-contract.ts";

blobStoreContract("memory", () => Promise.resolve(createMemoryBlobStore()));
