import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type BlobRange,
  judgeBlobAnswer,
  rangeHeader,
} from "../../../src/upstream/blob-answers.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import type { Answer } from "../../../src/wire/exchange.ts";
import { upstreamAnswer } from "../../support/upstream-harness.ts";

const DIGEST = digestOf(Buffer.from("a blob"));
const WHOLE: BlobRange = { offset: 0, lastByte: undefined };
const REST: BlobRange = { offset: 40, lastByte: undefined };
const PART: BlobRange = { offset: 40, lastByte: 49 };

function ranged(range: string, length?: string): Answer {
  return upstreamAnswer(206, {
    "content-range": range,
    ...(length === undefined ? {} : { "content-length": length }),
  });
}

void describe("rangeHeader", () => {
  void it("requests the whole blob without Range", () => {
    assert.equal(rangeHeader(WHOLE), undefined);
    assert.equal(rangeHeader(REST), "bytes=40-");
    assert.equal(rangeHeader(PART), "bytes=40-49");
    assert.equal(rangeHeader({ offset: 0, lastByte: 0 }), "bytes=0-0");
  });
});

void describe("judgeBlobAnswer", () => {
  void it("accepts a 200 as the whole blob for every request", () => {
    const whole = upstreamAnswer(200, { "content-length": "100" });
    for (const asked of [WHOLE, REST, PART]) {
      assert.deepEqual(judgeBlobAnswer(whole, DIGEST, asked), {
        status: 200,
        offset: 0,
        sizeBytes: 100,
        expectedBytes: 100,
      });
    }
  });

  void it("leaves the size undefined if it is missing or not a number", () => {
    for (const length of [undefined, "-1", "1e3", "5, 5", "9".repeat(30)]) {
      const answer = upstreamAnswer(
        200,
        length === undefined ? {} : { "content-length": length },
      );
      assert.deepEqual(judgeBlobAnswer(answer, DIGEST, WHOLE), {
        status: 200,
        offset: 0,
        sizeBytes: undefined,
        expectedBytes: undefined,
      });
    }
  });

  void it("accepts a length of 0 for the empty blob only", () => {
    const nothing = upstreamAnswer(200, { "content-length": "0" });
    assert.equal(
      judgeBlobAnswer(nothing, DIGEST, WHOLE),
      "got length 0 for a blob that is not empty",
    );
    for (const algorithm of ["sha256", "sha512"] as const) {
      const digest = digestOf(Buffer.alloc(0), algorithm);
      assert.deepEqual(judgeBlobAnswer(nothing, digest, WHOLE), {
        status: 200,
        offset: 0,
        sizeBytes: 0,
        expectedBytes: 0,
      });
    }
  });

  void it("accepts a 206 with exactly the requested range", () => {
    const cases: [Answer, BlobRange, number | undefined, number][] = [
      [ranged("bytes 40-99/100", "60"), REST, 100, 60],
      [ranged("bytes 40-99/100"), REST, 100, 60],
      [ranged("Bytes 40-99/*"), REST, undefined, 60],
      [ranged("bytes 40-49/100", "10"), PART, 100, 10],
      [ranged("bytes 40-44/45", "5"), PART, 45, 5],
    ];
    for (const [got, asked, sizeBytes, expectedBytes] of cases) {
      assert.deepEqual(judgeBlobAnswer(got, DIGEST, asked), {
        status: 206,
        offset: 40,
        sizeBytes,
        expectedBytes,
      });
    }
  });

  void it("refuses every other 206", () => {
    const refused: [Answer, BlobRange][] = [
      [ranged("bytes 0-99/100", "100"), WHOLE],
      [ranged("bytes 0-99/100", "100"), REST],
      [ranged("bytes 41-99/100", "59"), REST],
      [ranged("bytes 40-98/100", "59"), REST],
      [ranged("bytes 40-99/100", "61"), REST],
      [ranged("bytes 40-99/50"), REST],
      [ranged("bytes 40-39/100"), REST],
      [ranged("bytes 40-50/100"), PART],
      [ranged("bytes 40-48/100"), PART],
      [ranged("bytes */100"), REST],
      [ranged("items 40-99/100"), REST],
      [ranged("bytes 40-99/99999999999999999999"), PART],
      [
        upstreamAnswer(206, {
          "content-type": "multipart/byteranges; boundary=x",
        }),
        REST,
      ],
    ];
    for (const [got, asked] of refused) {
      const verdict = judgeBlobAnswer(got, DIGEST, asked);
      assert.equal(typeof verdict, "string", JSON.stringify(verdict));
    }
  });
});
