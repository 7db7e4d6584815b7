import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { expandPattern } from "../../../src/images/image-pattern.ts";
import { createRoutes } from "../../../src/routing/routes.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

const routes = createRoutes([
  {
    ...UPSTREAM_DEFAULTS,
    name: "docker.io",
    endpoints: ["https://registry-1.docker.io"],
    isDefault: true,
    libraryPrefix: true,
    aliases: ["index.docker.io"],
  },
  {
    ...UPSTREAM_DEFAULTS,
    name: "ghcr.io",
    endpoints: ["https://ghcr.io"],
    isDefault: false,
  },
]);

const TABLE: readonly (readonly [string, string | undefined])[] = [
  ["alpine:*", "docker.io/library/alpine:*"],
  ["alp*", "docker.io/library/alp*"],
  ["library/*", "docker.io/library/*"],
  ["team/**:1.*", "docker.io/team/**:1.*"],
  ["docker.io/*", "docker.io/library/*"],
  ["docker.io/**", "docker.io/**"],
  ["index.docker.io/team/*", "docker.io/team/*"],
  ["ghcr.io/*", "ghcr.io/*"],
  ["ghcr.io/org/*:1", "ghcr.io/org/*:1"],
  ["removed.example/*", undefined],
  ["registry:5000/*", undefined],
  ["*", undefined],
  ["**", undefined],
  ["*:latest", undefined],
  ["**/app:1", undefined],
  ["*/app", undefined],
];

void describe("a pattern as engines read it", () => {
  for (const [pattern, want] of TABLE) {
    void it(`${pattern} is ${want ?? "taken as it is written"}`, () => {
      assert.equal(expandPattern(pattern, routes), want);
    });
  }
});
