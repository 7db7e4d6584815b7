import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { resolveVariables } from "../../../../src/images/lists/compose-variables.ts";
import { outlineList } from "../../../support/list-outline.ts";

const CASES: readonly {
  readonly name: string;
  readonly list: string;
  readonly entries?: readonly string[];
  readonly faults?: readonly string[];
  readonly notes?: readonly string[];
}[] = [
  {
    name: "reads the images of services with their platforms",
    list: `name: app
services:
  web:
    image: nginx:1.27
    platform: linux/arm64/v8
    ports: ["80:80"]
  db:
    image: ghcr.io/corp/db@sha256:${"a".repeat(64)}
`,
    entries: [
      "4 nginx:1.27 linux/arm64",
      `8 ghcr.io/corp/db@sha256:${"a".repeat(64)}`,
    ],
  },
  {
    name: "notes what is built or not pulled, and fetches what is tried first",
    list: `services:
  built: {build: .}
  tried: {build: ., image: "app:1"}
  forced: {build: ., image: "app:2", pull_policy: build}
  local: {image: "app:3", pull_policy: never}
  pulled: {image: "app:4", pull_policy: build}
  missing: {image: "app:5", pull_policy: missing}
`,
    entries: ["3 app:1", "6 app:4", "7 app:5"],
    notes: [
      '2 the service "built" is built, not pulled',
      '4 the service "forced" is not pulled: pull_policy is build',
      '5 the service "local" is not pulled: pull_policy is never',
    ],
  },
  {
    name: "rejects a service with nothing to run, but not one of a provider",
    list: `services:
  a: {command: x}
  b: {provider: {type: model}}
  c: {image: "c:1"}
  d: nothing
`,
    entries: ["4 c:1"],
    faults: [
      '5 got no mapping for "d"; expected image',
      '2 got the service "a" without image and build; expected one of them',
    ],
  },
  {
    name: "takes the default of a variable and notes that it did",
    list: `services:
  a: {image: "\${REGISTRY:-ghcr.io/corp}/a:\${TAG-1.0}"}
  b: {image: "b:1\${SUFFIX:+-debug}", platform: "\${OS:-linux}/arm64"}
`,
    entries: ["2 ghcr.io/corp/a:1.0", "3 b:1 linux/arm64"],
    notes: [
      "2 the default of REGISTRY is used; the environment and .env are not read",
      "2 the default of TAG is used; the environment and .env are not read",
    ],
  },
  {
    name: "rejects a variable without a default and reads the other services",
    list: `services:
  a: {image: "a:$TAG"}
  b: {image: "b:\${TAG:?set it}"}
  c: {image: "c:1", platform: "$PLATFORM"}
  d: {image: "d:1"}
`,
    entries: ["5 d:1"],
    faults: [
      "2|a:$TAG|TAG",
      "3|b:${TAG:?set it}|TAG",
      "4|$PLATFORM|PLATFORM",
    ].map((fault) => {
      const [line, text, variable] = fault.split("|");
      return `${line} "${text}": got the variable ${variable} without a default; expected the output of 'docker compose config', which resolves it`;
    }),
  },
  {
    name: "completes a service by those that it extends",
    list: `services:
  base: {image: "base:1", platform: linux/amd64}
  middle: {extends: base}
  top: {extends: {service: middle}, image: "top:1"}
`,
    entries: [
      "2 base:1 linux/amd64",
      "2 base:1 linux/amd64",
      "4 top:1 linux/amd64",
    ],
  },
  {
    name: "rejects services that extend another file, nothing or themselves",
    list: `services:
  a: {extends: {service: x, file: other.yml}}
  b: {extends: {service: x, file: other.yml}, image: "b:1"}
  c: {extends: missing}
  d: {extends: e}
  e: {extends: d}
`,
    entries: ["3 b:1"],
    faults: [
      `2 got "a" extending a service of another file; expected the output of 'docker compose config'`,
      '4 got "c" extending "missing"; expected a service of this file',
      '5 got "d" extending itself; expected no circle',
      '6 got "e" extending itself; expected no circle',
    ],
  },
  {
    name: "skips services in profiles",
    list: `services:
  a: {image: "a:1", profiles: [debug]}
  b: {image: "b:1", profiles: []}
`,
    entries: ["3 b:1"],
    notes: ['2 the service "a" is in a profile, which is not active'],
  },
  {
    name: "reads merge keys, image volumes and hooks",
    list: `x-base: &base
  image: a:1
services:
  a:
    <<: *base
    volumes:
      - ./data:/data
      - {type: bind, source: ./x, target: /x}
      - {type: image, source: "data:1", target: /y}
    pre_start:
      - {image: "migrate:1", command: up}
`,
    entries: ["2 a:1", "9 data:1", "11 migrate:1"],
  },
  {
    name: "pulls nothing for a service that is never pulled",
    list: `services:
  a: {image: "a:1", pull_policy: never, volumes: [{type: image, source: "b:1"}]}
  c: {image: "c:1"}
`,
    entries: ["3 c:1"],
    notes: ['2 the service "a" is not pulled: pull_policy is never'],
  },
  {
    name: "merges several documents, the last one winning",
    list: `services:
  a: {image: "a:1", platform: linux/amd64}
  b: {image: "b:1"}
---
services:
  a: {image: "a:2"}
`,
    entries: ["6 a:2 linux/amd64", "3 b:1"],
  },
  {
    name: "notes parts that are not covered",
    list: `include: [other.yml]
models: {llm: {model: ai/smollm2}}
services:
  a: {image: "a:1"}
`,
    entries: ["4 a:1"],
    notes: [
      "1 included files are not read; use the output of 'docker compose config'",
      "2 models are not covered: only images are fetched",
    ],
  },
];

void describe("compose files", () => {
  for (const { name, list, entries = [], faults = [], notes = [] } of CASES) {
    void it(name, () => {
      assert.deepEqual(outlineList(list), { entries, faults, notes });
    });
  }
});

void describe("variables of compose files", () => {
  /** The cases of Compose's own documentation and tests that do not set a variable. */
  const TEXTS: readonly (readonly [string, string | RegExp])[] = [
    ["foo", "foo"],
    ["$${foo}", "${foo}"],
    ["$$VAR_NOT_INTERPOLATED", "$VAR_NOT_INTERPOLATED"],
    ["a $ string", "a $ string"],
    ["$}", "$}"],
    ["$", "$"],
    ["ok ${missing:-def}", "ok def"],
    ["ok ${missing-def}", "ok def"],
    ["ok ${missing:-}", "ok "],
    ["${A:+${A},}B", "B"],
    ["${A:-${B:-}}", ""],
    ["ok ${UNSET_VAR:+presence_value}", "ok "],
    ["ok ${UNSET_VAR+presence_value}", "ok "],
    ["ok ${BAR:-/non:-alphanumeric}", "ok /non:-alphanumeric"],
    ["+ok ${UNSET:-${BAR-defaultValue}}", "+ok defaultValue"],
    [":?ok ${BAR-defaultValue}", ":?ok defaultValue"],
    ['${JSON:-{"a":{}}}', '{"a":{}}'],
    ["${A:-a}${B:-b}$$${C:-c}", "ab$c"],
    ["${A:-$B}", /variable B without a default/],
    ["$FOO-bar", /variable FOO without a default/],
    ["This ${missing} var", /variable missing without a default/],
    ["${UNSET_VAR:?Mandatory}", /variable UNSET_VAR without a default/],
    ["${UNSET_VAR?}", /variable UNSET_VAR without a default/],
    ["${", /open \$\{/],
    ["${A:-${B}", /open \$\{/],
    ["${}", /got \$\{\}; expected/],
    ["${ }", /got \$\{ \}; expected/],
    ["${ foo}", /expected \$\{NAME\}/],
    ["${foo }", /expected \$\{NAME\}/],
    ["${foo!}", /expected \$\{NAME\}/],
    ["${A:-".repeat(40) + "}".repeat(40), /at most 16 levels/],
  ];
  for (const [text, want] of TEXTS) {
    void it(`resolves ${text.slice(0, 40)}`, () => {
      const resolved = resolveVariables(text);
      const got = resolved.ok ? resolved.text : resolved.reason;
      if (typeof want === "string") assert.equal(got, want);
      else assert.match(got, want);
    });
  }
});
