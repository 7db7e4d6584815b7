import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  imageText,
  parseImageReference,
  parseImageText,
} from "../../../src/images/image-reference.ts";
import { createRoutes } from "../../../src/routing/routes.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

const routes = createRoutes([
  {
    ...UPSTREAM_DEFAULTS,
    name: "docker.io",
    endpoints: ["https://registry-1.docker.io"],
    aliases: ["hub"],
    libraryPrefix: true,
  },
]);

void describe("the name of a cached image", () => {
  for (const [text, want] of [
    ["docker.io/alpine:3", "docker.io/library/alpine:3"],
    ["hub/team/app:1", "docker.io/team/app:1"],
    [`hub/alpine@${DIGEST}`, `docker.io/library/alpine@${DIGEST}`],
    ["gone.example:5000/app:1", "gone.example:5000/app:1"],
  ] as const) {
    void it(`${text} means ${want}`, () => {
      const read = parseImageReference(text, routes);
      assert.equal(read && imageText(read), want);
    });

    void it(`${text} round-trips as the cursor of a list`, () => {
      const read = parseImageText(text);
      assert.equal(read && imageText(read), text);
    });
  }

  for (const text of [
    "",
    "alpine:3",
    "/alpine:3",
    "docker.io/alpine",
    "docker.io/Alpine:3",
    "docker.io/alpine@latest",
    `docker.io/alpine:${DIGEST}`,
    `docker.io/alpine:3@${DIGEST}`,
  ]) {
    void it(`${JSON.stringify(text)} is invalid`, () => {
      assert.equal(parseImageText(text), undefined);
      assert.equal(parseImageReference(text, routes), undefined);
    });
  }
});
