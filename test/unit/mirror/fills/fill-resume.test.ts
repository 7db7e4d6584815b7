import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { chooseResume } from "../../../../src/mirror/fills/fill-resume.ts";
import { failure } from "../../../support/fill-harness.ts";

const BROKEN = failure("interrupted");

void describe("a broken download", () => {
  void it("is requested again at most twice while no client reads it", () => {
    const state = { fruitless: 1, hasReaders: false };
    assert.deepEqual(
      [1, 2, 3].map((dials) => chooseResume(BROKEN, { ...state, dials })),
      [0, 0, undefined],
    );
  });

  void it("is resumed as long as it delivers bytes to a client, within a bound", () => {
    const state = { fruitless: 1, hasReaders: true };
    assert.equal(chooseResume(BROKEN, { ...state, dials: 199 }), 0);
    assert.equal(chooseResume(BROKEN, { ...state, dials: 200 }), undefined);
  });

  void it("is given up after six requests without progress, with growing delays", () => {
    assert.deepEqual(
      [1, 2, 3, 4, 5, 6].map((fruitless) =>
        chooseResume(BROKEN, { fruitless, dials: 9, hasReaders: true }),
      ),
      [0, 1_000, 2_000, 4_000, 8_000, undefined],
    );
  });

  for (const kind of ["not-found", "denied", "digest-mismatch"] as const) {
    void it(`is not resumed after ${kind}`, () => {
      const state = { fruitless: 1, dials: 1, hasReaders: true };
      assert.equal(chooseResume(failure(kind), state), undefined);
    });
  }
});
