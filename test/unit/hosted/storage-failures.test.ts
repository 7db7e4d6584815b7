import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { explainStorageFailure } from "../../../src/hosted/storage-failures.ts";
import { createCatalog } from "../../../src/images/catalog.ts";
import { RegistryError } from "../../../src/oci/errors.ts";
import { StorageError } from "../../../src/storage/blob-store.ts";
import {
  IndexAwayError,
  IndexError,
} from "../../../src/storage/metadata-index.ts";

class SystemError extends Error {
  readonly code: string;

  constructor(code: string, cause?: unknown) {
    super(code, { cause });
    this.code = code;
  }
}

void describe("a failure of the storage", () => {
  const cases: readonly (readonly [
    string,
    Error,
    number,
    number | undefined,
  ])[] = [
    ["a full disk", new StorageError("write", "ENOSPC"), 507, undefined],
    ["a full quota", new StorageError("write", "EDQUOT"), 507, undefined],
    [
      "an index on a full disk",
      new IndexError("put", { cause: new SystemError("SQLITE_FULL") }),
      507,
      undefined,
    ],
    [
      "an index whose system reports a full disk",
      new IndexError("put", {
        cause: new SystemError("SQLITE_IOERR", new SystemError("ENOSPC")),
      }),
      507,
      undefined,
    ],
    ["an I/O error", new StorageError("write", "EIO"), 503, 5_000],
    ["an absent root", new IndexAwayError("getTag"), 503, 5_000],
    [
      "a locked index",
      new IndexError("put", {
        isLocked: true,
        cause: new SystemError("SQLITE_BUSY"),
      }),
      503,
      5_000,
    ],
  ];
  for (const [what, failure, status, retryAfterMs] of cases) {
    void it(`that is ${what} is ${status} for the client, and its cause is kept for the log`, () => {
      const error = explainStorageFailure(failure);
      assert.ok(error instanceof RegistryError);
      assert.deepEqual(
        [error.code, error.status, error.retryAfterMs, error.cause],
        ["UNAVAILABLE", status, retryAfterMs, failure],
      );
    });
  }

  void it("is explained in the catalog too", async () => {
    const failure = new IndexAwayError("listRepositories");
    const list = createCatalog({
      listRepositories: () => Promise.reject(failure),
      listHostedRepositories: () => Promise.reject(failure),
    });
    const names = {
      listedName: () => undefined,
      isHosted: () => false,
      isOfDefault: () => false,
    };
    await assert.rejects(
      list({ n: 1, last: undefined }, undefined, () => true, names),
      { code: "UNAVAILABLE", status: 503 },
    );
  });

  void it("is not an error of another kind", () => {
    const bug = new TypeError("bug");
    const refusal = new RegistryError("BLOB_UNKNOWN");
    assert.equal(explainStorageFailure(bug), bug);
    assert.equal(explainStorageFailure(refusal), refusal);
  });
});
