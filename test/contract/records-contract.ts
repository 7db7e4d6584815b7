import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  IndexError,
  type MetadataIndex,
} from "../../src/storage/metadata-index.ts";
import type { AfterTest } from "../support/after-test.ts";

/** The requirements of every implementation on documents of services. */
export function recordsContract(
  name: string,
  make: (test: AfterTest) => Promise<MetadataIndex>,
): void {
  void describe(`records contract: ${name}`, () => {
    void it("lists the records of a kind in the order of their ids, in pages", async (test) => {
      const index = await make(test);
      assert.deepEqual(await index.listRecords("job", 10, undefined), []);
      await index.writeRecords("job", [record("b"), record("c")], []);
      await index.writeRecords("job", [record("a")], []);
      await index.writeRecords("wish", [record("b", "another kind")], []);
      assert.deepEqual(await index.listRecords("job", 2, undefined), [
        record("a"),
        record("b"),
      ]);
      assert.deepEqual(await index.listRecords("job", 2, "b"), [record("c")]);
      assert.deepEqual(await index.listRecords("job", 2, "bb"), [record("c")]);
      assert.deepEqual(await index.listRecords("job", 2, "c"), []);
      assert.deepEqual(await index.listRecords("wish", 2, undefined), [
        record("b", "another kind"),
      ]);
    });

    void it("replaces and drops records of one kind only", async (test) => {
      const index = await make(test);
      for (const kind of ["job", "wish"] as const) {
        await index.writeRecords(kind, [record("a"), record("b")], []);
      }
      await index.writeRecords("job", [record("a", "é\0😀")], ["b", "absent"]);
      assert.deepEqual(await index.listRecords("job", 10, undefined), [
        record("a", "é\0😀"),
      ]);
      assert.deepEqual(await index.listRecords("wish", 10, undefined), [
        record("a"),
        record("b"),
      ]);
      await index.writeRecords("job", [], []);
      await index.writeRecords("job", [], ["a"]);
      assert.deepEqual(await index.listRecords("job", 10, undefined), []);
    });

    void it("keeps a record of several MiB", async (test) => {
      const index = await make(test);
      const text = "0123456789abcdef".repeat(1_048_576);
      await index.writeRecords("job", [{ id: "large", text }], []);
      const [kept] = await index.listRecords("job", 1, undefined);
      assert.equal(kept?.text === text, true);
    });

    void it("does not count records as stored content", async (test) => {
      const index = await make(test);
      const before = await index.totals();
      await index.writeRecords("wish", [record("a")], []);
      assert.deepEqual(await index.totals(), before);
    });

    void it("rejects calls after it was closed", async (test) => {
      const index = await make(test);
      await index.close();
      await assert.rejects(index.writeRecords("job", [], []), IndexError);
      await assert.rejects(index.listRecords("job", 1, undefined), IndexError);
    });
  });
}

function record(id: string, text = `{"of":"${id}"}`) {
  return { id, text };
}
