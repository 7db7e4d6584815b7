import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  imageText,
  parseImageReference,
  parseImageText,
} from "../../../src/images/image-reference.ts";
import type {
  HostedConfig,
  UpstreamConfig,
} from "../../../src/config/config.ts";
import { createRoutes } from "../../../src/routing/routes.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

const hub: UpstreamConfig = {
  ...UPSTREAM_DEFAULTS,
  name: "docker.io",
  endpoints: ["https://registry-1.docker.io"],
  isDefault: true,
  aliases: ["hub"],
  libraryPrefix: true,
};
const corp: UpstreamConfig = {
  ...UPSTREAM_DEFAULTS,
  name: "registry.corp:5000",
  endpoints: ["https://registry.corp:5000"],
  isDefault: false,
};

function hosted(name: string, isDefault: boolean): HostedConfig {
  return {
    name,
    isDefault,
    hostnames: [],
    anonymousPush: "loopback",
    immutableTags: [],
    quotaBytes: Infinity,
    maxManifestBytes: 4_194_304,
    uploadExpiryMs: 86_400_000,
    retention: undefined,
  };
}

const byHub = createRoutes([hub, corp], [], [hosted("local", false)]);
const byHosted = createRoutes(
  [hub, corp],
  [],
  [hosted("local", true), hosted("team", false)],
);
const byNone = createRoutes([corp]);

void describe("the name of an image", () => {
  for (const [text, whileHub, whileHosted] of [
    ["docker.io/alpine:3", "docker.io/library/alpine:3", "same"],
    ["hub/team/app:1", "docker.io/team/app:1", "same"],
    [`hub/alpine@${DIGEST}`, `docker.io/library/alpine@${DIGEST}`, "same"],
    ["docker.io/alpine", "docker.io/library/alpine:latest", "same"],
    ["alpine:3", "docker.io/library/alpine:3", "local/alpine:3"],
    ["alpine", "docker.io/library/alpine:latest", "local/alpine:latest"],
    [
      `alpine@${DIGEST}`,
      `docker.io/library/alpine@${DIGEST}`,
      `local/alpine@${DIGEST}`,
    ],
    [
      `alpine:3@${DIGEST}`,
      `docker.io/library/alpine@${DIGEST}`,
      `local/alpine@${DIGEST}`,
    ],
    [
      `registry.corp:5000/app:1@${DIGEST}`,
      `registry.corp:5000/app@${DIGEST}`,
      "same",
    ],
    ["grafana/loki:3", "docker.io/grafana/loki:3", "local/grafana/loki:3"],
    ["local/team/app:1", "local/team/app:1", "same"],
    ["local/app", "local/app:latest", "same"],
    ["team/app:1", "docker.io/team/app:1", "team/app:1"],
    ["registry.corp:5000/app:1", "registry.corp:5000/app:1", "same"],
    ["registry.corp:5000/app", "registry.corp:5000/app:latest", "same"],
    ["gone.example:5000/app:1", "gone.example:5000/app:1", "same"],
    // As for a client: with a hosted default every other name is hosted there.
    ["gone.example/app:1", "gone.example/app:1", "local/gone.example/app:1"],
  ] as const) {
    void it(`${text} means ${whileHub}, and with a hosted default ${whileHosted}`, () => {
      for (const [routes, want] of [
        [byHub, whileHub],
        [byHosted, whileHosted === "same" ? whileHub : whileHosted],
      ] as const) {
        const read = parseImageReference(text, routes);
        assert.equal(read && imageText(read), want);
      }
    });
  }

  void it("without a registry is invalid if there is no default", () => {
    assert.equal(parseImageReference("alpine:3", byNone), undefined);
    const read = parseImageReference("team/app:1", byNone);
    assert.equal(read && imageText(read), "team/app:1");
  });

  for (const text of [
    "docker.io/library/alpine:3",
    `docker.io/library/alpine@${DIGEST}`,
    "registry.corp:5000/app:1",
    "local/team/app:1",
  ]) {
    void it(`${text} round-trips as the cursor of a list`, () => {
      const read = parseImageText(text);
      assert.equal(read && imageText(read), text);
    });
  }

  for (const text of [
    "",
    ":",
    "@",
    "/alpine:3",
    "docker.io/",
    "docker.io/Alpine:3",
    "Alpine",
    "docker.io/alpine@latest",
    "docker.io/alpine@",
    "docker.io/alpine:",
    `docker.io/alpine:${DIGEST}`,
  ]) {
    void it(`${JSON.stringify(text)} is invalid`, () => {
      assert.equal(parseImageText(text), undefined);
      for (const routes of [byHub, byHosted, byNone]) {
        assert.equal(parseImageReference(text, routes), undefined);
      }
    });
  }
});
