import assert from "node:assert/strict";
import { test } from "node:test";
import {
  IN_MEMORY,
  openSqliteIndex,
} from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import { IndexHealth } from "../../../../../src/storage/local/upkeep/index-health.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import {
  HostedModel,
  readHostedState,
} from "../../../../support/hosted-model.ts";
import { MemoryMetadataIndex } from "../../../../support/memory-index/memory-metadata-index.ts";
import { createMemoryParts } from "../../../../support/memory-index/memory-transactions.ts";
import { chooseSeed, seededRandom } from "../../../../support/seeded-choice.ts";

const ROUNDS = process.env["ENTREPOT_SOAK"] === "1" ? 40 : 3;
const STEPS = 150;

void test("random pushes, pulls and deletions have the same results in SQLite and in memory", async (context) => {
  const seed = chooseSeed();
  context.diagnostic(`ENTREPOT_SEED=${seed}`);
  const random = seededRandom(seed);
  for (let round = 0; round < ROUNDS; round++) {
    const clock = new FakeClock();
    const { index, database } = openSqliteIndex({ path: IN_MEMORY, clock });
    const memory = new MemoryMetadataIndex(createMemoryParts(clock));
    const model = new HostedModel(random, clock);
    const done: string[] = [];
    for (let step = 0; step < STEPS; step++) {
      const { text, run } = model.next();
      done.push(text);
      const history = `seed ${seed}\n${done.slice(-30).join("\n")}`;
      const [got, want] = [await run(index), await run(memory)];
      assert.deepEqual(got, want, history);
      const [state, wanted] = [
        await readHostedState(index),
        await readHostedState(memory),
      ];
      assert.deepEqual(state, wanted, history);
    }
    const { kept, counted } = new IndexHealth(database).compareTotals();
    assert.deepEqual(kept, counted);
    assert.deepEqual(database.pragma("foreign_key_check"), []);
    const quotas = (sql: string) => database.prepare(sql).all();
    assert.deepEqual(
      quotas("SELECT id, bytes FROM hosted_registries ORDER BY id"),
      quotas(
        `SELECT id, (
           SELECT coalesce(sum(size_bytes), 0) FROM blobs WHERE id IN (
             SELECT blob_id FROM hosted_links
             JOIN repositories ON repositories.id = repository_id
             WHERE hosted_registry_id = hosted_registries.id)
         ) AS bytes FROM hosted_registries ORDER BY id`,
      ),
    );
    await index.close();
    await memory.close();
  }
});
