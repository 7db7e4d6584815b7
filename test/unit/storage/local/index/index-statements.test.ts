import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { prepareRecoveryStatements } from "../../../../../src/storage/local/index/hosted-index/hosted-recovery.ts";
import { prepareHostedStatements } from "../../../../../src/storage/local/index/hosted-index/hosted-statements.ts";
import { prepareIndexStatements } from "../../../../../src/storage/local/index/index-statements.ts";
import { prepareRootStatements } from "../../../../../src/storage/local/index/root-statements.ts";
import { openDatabase } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import { releaseAfter } from "../../../../support/after-test.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

void describe("the statements of the index", () => {
  void it("find their rows by an index, without sorting", async (test) => {
    const database = openDatabase(join(await tempDir(test), "index.sqlite"));
    releaseAfter(test, () => {
      database.close();
    });
    const statements = [
      ...Object.entries(prepareIndexStatements(database)),
      ...Object.entries(prepareRootStatements(database)),
      ...Object.entries(prepareHostedStatements(database)),
      ...Object.entries(prepareRecoveryStatements(database)),
    ];
    assert(statements.length >= 100);
    for (const [name, { source }] of statements) {
      // Any value serves as a parameter: the plan does not depend on it.
      const plan = database
        .prepare<[], { detail: string }>(
          `EXPLAIN QUERY PLAN ${source.replaceAll(/\?\d*|:\w+/g, "1")}`,
        )
        .all()
        .map(({ detail }) => detail);
      for (const step of plan) {
        assert.doesNotMatch(
          step,
          /^SCAN (?!CONSTANT ROW)(?!\(subquery)|TEMP B-TREE|AUTOMATIC/,
          `${name}: ${step}`,
        );
      }
    }
  });

  void it("hide the values of parameters from the planner of a join", async (test) => {
    const database = openDatabase(join(await tempDir(test), "index.sqlite"));
    releaseAfter(test, () => {
      database.close();
    });
    const joins = Object.entries(prepareIndexStatements(database)).filter(
      ([, { source }]) => source.includes(" JOIN "),
    );
    // Their tables have partial indexes, which SQLite also judges by the values.
    const others = [
      ...Object.entries(prepareRootStatements(database)),
      ...Object.entries(prepareHostedStatements(database)),
      ...Object.entries(prepareRecoveryStatements(database)),
    ];
    for (const [name, { source }] of [...joins, ...others]) {
      assert.doesNotMatch(
        source,
        /[=<>] *(?:\?|:\w)/,
        `${name}: (SELECT ?) keeps the plan when another value is bound`,
      );
    }
  });

  void it("have an index for every foreign key with cascade", async (test) => {
    const database = openDatabase(join(await tempDir(test), "index.sqlite"));
    releaseAfter(test, () => {
      database.close();
    });
    const cascades = database
      .prepare<[], { child: string; column: string }>(
        `SELECT m.name AS child, f."from" AS "column"
         FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f
         WHERE m.type = 'table' AND f.on_delete = 'CASCADE' AND f.seq = 0`,
      )
      .all();
    assert.equal(cascades.length, 10);
    for (const { child, column } of cascades) {
      const [step] = database
        .prepare<[], { detail: string }>(
          `EXPLAIN QUERY PLAN DELETE FROM ${child} WHERE ${column} = 1`,
        )
        .all();
      assert.match(step?.detail ?? "", /^SEARCH /, child);
    }
  });
});
