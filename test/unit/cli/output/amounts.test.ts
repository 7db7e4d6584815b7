import assert from "node:assert/strict";
import { test } from "node:test";
import {
  countText,
  durationText,
  minuteText,
  percentText,
  sizeText,
} from "../../../../src/cli/output/amounts.ts";

const TABLE: readonly (readonly [string, string])[] = [
  [sizeText(0), "0 B"],
  [sizeText(1_023), "1023 B"],
  [sizeText(1_024), "1.0 KiB"],
  [sizeText(10_240), "10 KiB"],
  [sizeText(1_048_570), "1.0 MiB"],
  [sizeText(1_048_576 * 1_023.7), "1.0 GiB"],
  [sizeText(5 * 1024 ** 4), "5.0 TiB"],
  [countText(1, "image", "images"), "1 image"],
  [countText(0, "image", "images"), "0 images"],
  [minuteText("2026-01-02T03:04:05.678Z"), "2026-01-02 03:04 UTC"],
  [minuteText("2026-01-02T03:04:05Z"), "2026-01-02 03:04 UTC"],
  [minuteText("2026-01-02T03:04:05+02:00"), "2026-01-02T03:04:05+02:00"],
  [durationText(0), "0s"],
  [durationText(-5), "0s"],
  [durationText(59_400), "59s"],
  [durationText(3_600_000), "1h"],
  [durationText(3_661_000), "1h 1m"],
  [durationText(90_061_000), "1d 1h"],
  [percentText(0), "0 %"],
  [percentText(1), "100 %"],
  [percentText(0.9876), "98.8 %"],
];

for (const [got, want] of TABLE) {
  void test(want, () => assert.equal(got, want));
}
