import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { outlineList } from "../../../support/list-outline.ts";

void describe("platforms of lists", () => {
  const PLATFORMS: readonly (readonly [string, string | undefined])[] = [
    ["linux/amd64", "linux/amd64"],
    ["linux/arm64/v8", "linux/arm64"],
    ["linux/aarch64", "linux/arm64"],
    ["Linux/x86_64", "linux/amd64"],
    ["linux/arm/v7", "linux/arm/v7"],
    ["linux/armhf", "linux/arm/v7"],
    ["linux/armel", "linux/arm/v6"],
    ["windows/amd64", "windows/amd64"],
    ["amd64", undefined],
    ["linux/", undefined],
    ["linux/arm64/v8/x", undefined],
    ["linux/arm 64", undefined],
  ];
  for (const [platform, want] of PLATFORMS) {
    void it(`are read as engines read them: ${platform}`, () => {
      const { entries, faults } = outlineList(
        `services: {a: {image: "a:1", platform: "${platform}"}}`,
      );
      if (want !== undefined) assert.deepEqual(entries, [`1 a:1 ${want}`]);
      else {
        assert.deepEqual(faults, [
          `1 got the platform "${platform}" of docker.io/a:1; expected OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64`,
        ]);
      }
    });
  }
});
