import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createPullPolicy } from "../../../src/mirror/pull-policy.ts";
import { parseDigest } from "../../../src/oci/digest.ts";
import { parseRepositoryName, parseTag } from "../../../src/oci/reference.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

interface Case {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  /** References that may and may not be pulled; a name alone stands for its lists. */
  readonly yes: readonly string[];
  readonly no: readonly string[];
}

const CASES: readonly Case[] = [
  { yes: ["a/b:1", `a@${DIGEST}`, "a"], no: [] },
  {
    allow: ["library/*"],
    yes: ["library/alpine:3", `library/alpine@${DIGEST}`, "library/alpine"],
    no: ["team/a:1", "library/a/b:1", `team/a@${DIGEST}`, "team/a"],
  },
  {
    // The digest of an allowed tag has to be pullable.
    allow: ["library/alpine:3.*"],
    yes: ["library/alpine:3.20", `library/alpine@${DIGEST}`, "library/alpine"],
    no: [
      "library/alpine:4.0",
      "library/debian:3.1",
      `library/debian@${DIGEST}`,
    ],
  },
  {
    deny: ["**:latest"],
    yes: ["library/alpine:3", `library/alpine@${DIGEST}`, "library/alpine"],
    no: ["library/alpine:latest", "alpine:latest"],
  },
  {
    deny: ["evil/**"],
    yes: ["good/a:1"],
    no: ["evil/a:1", `evil/a/b@${DIGEST}`, "evil/a"],
  },
  {
    allow: ["team/**", "library/*:1.*"],
    deny: ["team/secret", "**:*-rc"],
    yes: ["team/a/b:1", `team/a@${DIGEST}`, "library/x:1.0"],
    no: [
      "team/secret:1",
      `team/secret@${DIGEST}`,
      "team/a:2-rc",
      "library/x:1.0-rc",
      "library/x:2.0",
    ],
  },
];

function mayPull({ allow = [], deny = [] }: Case, text: string): boolean {
  const [, name = "", tag, digest] =
    /^([^:@]+)(?::([^@]+))?(?:@(.+))?$/.exec(text) ?? [];
  const repository = parseRepositoryName(name) ?? assert.fail(name);
  const policy = createPullPolicy({ allow, deny });
  if (digest !== undefined) {
    const parsed = parseDigest(digest) ?? assert.fail(digest);
    return policy(repository, { kind: "digest", digest: parsed });
  }
  if (tag === undefined) return policy(repository, undefined);
  return policy(repository, {
    kind: "tag",
    tag: parseTag(tag) ?? assert.fail(tag),
  });
}

void describe("createPullPolicy", () => {
  for (const one of CASES) {
    const { allow = [], deny = [] } = one;
    const name = `allow [${allow.join(" ")}] and deny [${deny.join(" ")}]`;
    for (const text of one.yes) {
      void it(`allows ${text.replace(DIGEST, "…")} with ${name}`, () => {
        assert.equal(mayPull(one, text), true);
      });
    }
    for (const text of one.no) {
      void it(`denies ${text.replace(DIGEST, "…")} with ${name}`, () => {
        assert.equal(mayPull(one, text), false);
      });
    }
  }
});
