import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  readMemoryLimit,
  resolveFillLimit,
  resolveUploadLimit,
} from "../../../src/config/descriptor-limit.ts";

const GIB = 1024 ** 3;

void describe("limits.fills of 0", () => {
  for (const [what, descriptors, memoryGib, fills] of [
    ["carries 200 downloads with 1024 open files", 1_024, 16, 224],
    ["carries 1000 downloads with 8192 open files and 2 GiB", 8_192, 2, 1_024],
    ["is bounded by the memory", 1_048_576, 0.5, 256],
    ["is bounded however much there is", Infinity, 1_024, 4_096],
    ["leaves a few downloads where next to nothing is allowed", 64, 0.001, 4],
  ] as const) {
    void it(what, () => {
      const limits = { descriptors, memoryBytes: memoryGib * GIB };
      assert.equal(resolveFillLimit(0, limits), fills);
    });
  }

  void it("is overridden by a number", () => {
    const limits = { descriptors: 64, memoryBytes: GIB };
    assert.equal(resolveFillLimit(64, limits), 64);
  });

  void it("respects the memory limit of the process", () => {
    const bytes = readMemoryLimit();
    assert.ok(bytes > 0 && Number.isFinite(bytes), `${bytes}`);
  });
});

void describe("the limit of open uploads", () => {
  const derived = [
    { descriptors: 1_024, memoryBytes: 16 * GIB, uploads: 128 },
    { descriptors: 1_048_576, memoryBytes: 1 * GIB, uploads: 256 },
    { descriptors: 1_048_576, memoryBytes: 64 * GIB, uploads: 4_096 },
    { descriptors: 16, memoryBytes: GIB / 64, uploads: 4 },
  ];
  for (const { uploads, ...limits } of derived) {
    void it(`is ${uploads} with ${JSON.stringify(limits)}`, () => {
      assert.equal(resolveUploadLimit(0, limits), uploads);
    });
  }

  void it("is what the operator writes", () => {
    const limits = { descriptors: 16, memoryBytes: GIB };
    assert.equal(resolveUploadLimit(64, limits), 64);
  });
});
