import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { describeChanges } from "../../../src/config/changes.ts";
import type { Config } from "../../../src/config/config.ts";
import { describeConfig, formatConfig } from "../../../src/config/describe.ts";
import type { LoadResult } from "../../../src/config/load.ts";
import {
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

function configOf(result: LoadResult): Config {
  assert.deepEqual(printedFaults(result), []);
  assert.ok(result.ok);
  return result.config;
}

function namesOf({ hosted }: Config): string[] {
  return hosted.map(({ name }) => name);
}

void describe("hosted registries", () => {
  void it("are one, local, unless hosted is written", async (test) => {
    const folder = await makeConfigFolder(test);
    for (const [text, want] of [
      ["", ["local"]],
      ["hosted: {}", []],
      ["hosted: { local: }", ["local"]],
      ["hosted: { team: {}, other: }", ["team", "other"]],
    ] as const) {
      const result = await folder.loadText(text);
      assert.deepEqual(namesOf(configOf(result)), want, text);
      assert.deepEqual(printedWarnings(result), [], text);
    }
  });

  void it("leave the implicit local out if an upstream has its name, and say so", async (test) => {
    const folder = await makeConfigFolder(test);
    for (const text of [
      "upstreams: { local: { endpoints: [http://127.0.0.1:1] } }",
      "upstreams: { quay.io: { aliases: [hub, local] } }",
    ]) {
      const result = await folder.loadText(text);
      assert.deepEqual(namesOf(configOf(result)), []);
      assert.deepEqual(printedWarnings(result), [
        "c.yaml:1: hosted: got no value while an upstream has the name local, so that nothing is hosted; expected hosted with a registry of another name, or hosted: {}",
      ]);
      const written = await folder.loadText(`${text}\nhosted: { team: }`);
      assert.deepEqual(namesOf(configOf(written)), ["team"]);
      assert.deepEqual(printedWarnings(written), []);
    }
    const { env } = {
      env: { ENTREPOT_UPSTREAMS: "{local: {endpoints: ['http://[::1]:1']}}" },
    };
    const byVariable = await folder.load({ env });
    assert.deepEqual(namesOf(configOf(byVariable)), []);
    assert.equal(printedWarnings(byVariable).length, 1);
  });

  void it("take their scalars from the environment, as if the file had them", async (test) => {
    const folder = await makeConfigFolder(test);
    const result = await folder.loadText("hosted: { team: { quota: 1GiB } }", {
      env: {
        ENTREPOT_HOSTED__TEAM__QUOTA: "2GiB",
        ENTREPOT_HOSTED__LOCAL__ANONYMOUS_PUSH: "anywhere",
        ENTREPOT_HOSTED__LOCAL__MAX_MANIFEST_SIZE: "8MiB",
        ENTREPOT_HOSTED__LOCAL__RETENTION__UNTAGGED: "14d",
      },
    });
    assert.deepEqual(printedWarnings(result), []);
    const [team, local, ...others] = configOf(result).hosted;
    assert.deepEqual(others, []);
    assert.deepEqual([team?.name, team?.quotaBytes], ["team", 2 * 1024 ** 3]);
    assert.deepEqual(
      [local?.name, local?.anonymousPush, local?.maxManifestBytes],
      ["local", "anywhere", 8 * 1024 ** 2],
    );
    assert.equal(local?.retention?.untaggedMs, 14 * 86_400_000);

    const alone = configOf(
      await folder.load({ env: { ENTREPOT_HOSTED__LOCAL__DEFAULT: "true" } }),
    );
    assert.ok(alone.hosted[0]?.isDefault);
    assert.ok(alone.upstreams.every(({ isDefault }) => !isDefault));
    const entry = await folder.loadText("hosted: { local: }", {
      env: { ENTREPOT_HOSTED__LOCAL__DEFAULT: "true" },
    });
    assert.ok(configOf(entry).hosted[0]?.isDefault);
  });

  void it("report faults and unknown names of variables", async (test) => {
    const folder = await makeConfigFolder(test);
    const faulty = await folder.load({
      env: { ENTREPOT_HOSTED__LOCAL__QUOTA: "10" },
    });
    assert.deepEqual(printedFaults(faulty), [
      "ENTREPOT_HOSTED__LOCAL__QUOTA: hosted.local.quota: got 10; expected a size with a unit such as 200GiB, or 0",
    ]);
    const unknown = await folder.load({
      env: {
        ENTREPOT_HOSTED__LOCAL__QUOTAS: "1GiB",
        ENTREPOT_HOSTED__MY_TEAM__QUOTA: "1GiB",
        ENTREPOT_UPSTREAMS__QUAY__DEFAULT: "true",
      },
    });
    assert.equal(printedWarnings(unknown).length, 3);
    assert.match(
      printedWarnings(unknown)[0] ?? "",
      /did you mean ENTREPOT_HOSTED__LOCAL__QUOTA\?$/,
    );
    assert.deepEqual(namesOf(configOf(unknown)), ["local"]);
  });

  void it("replace the built-in default by their own", async (test) => {
    const folder = await makeConfigFolder(test);
    const { upstreams, hosted } = configOf(
      await folder.loadText("hosted: { local: { default: true } }"),
    );
    assert.equal(upstreams.length, 12);
    assert.ok(upstreams.every(({ isDefault }) => !isDefault));
    assert.ok(hosted[0]?.isDefault);
  });

  const FAULTS: readonly (readonly [
    name: string,
    yaml: string,
    faults: readonly string[],
  ])[] = [
    [
      "an upstream's key",
      "upstreams:\n  quay.io:\nhosted:\n  quay.io:\n",
      [
        ":4: hosted.quay.io: got quay.io, the name of upstreams.quay.io; expected a name that is used once",
      ],
    ],
    [
      "an upstream's alias",
      "upstreams: { quay.io: { aliases: [q] } }\nhosted:\n  q:\n",
      [
        ":3: hosted.q: got q, already an alias of upstreams.quay.io; expected a name that is used once",
      ],
    ],
    [
      "an implicit alias of Docker Hub",
      "hosted:\n  index.docker.io:\n",
      [
        ":2: hosted.index.docker.io: got index.docker.io, already an alias of docker.io unless that has aliases: []; expected a name that is used once",
      ],
    ],
    [
      "a well-known registry's name",
      "hosted:\n  ghcr.io:\n",
      [
        ":2: hosted.ghcr.io: got ghcr.io, the name of upstreams.ghcr.io; expected a name that is used once",
      ],
    ],
    [
      "a hostname of an upstream, and one of another hosted registry",
      "upstreams: { quay.io: { hostnames: [a.corp] } }\nhosted:\n  one: { hostnames: [b.corp, a.corp] }\n  two: { hostnames: [b.corp] }\n",
      [
        ":3: hosted.one.hostnames[1]: got a.corp, already a hostname of upstreams.quay.io; expected a hostname that is used once",
        ":4: hosted.two.hostnames[0]: got b.corp, already a hostname of hosted.one; expected a hostname that is used once",
      ],
    ],
    [
      "a second written default",
      "upstreams: { quay.io: { default: true } }\nhosted:\n  one: { default: true }\n  two: { default: true }\n",
      [
        ":3: hosted.one.default: got true, as at upstreams.quay.io; expected at most one default registry",
        ":4: hosted.two.default: got true, as at upstreams.quay.io; expected at most one default registry",
      ],
    ],
    [
      "names that are no legal component, or v2",
      "hosted:\n  v2:\n  Local:\n  a/b:\n  a:5000:\n  -a:\n  a..b:\n",
      ["v2", "Local", "a/b", "a:5000", "-a", "a..b"].map(
        (name, index) =>
          `:${index + 2}: hosted.${name}: got an invalid name; expected a component of a repository's name in lower case, such as local, and not v2`,
      ),
    ],
    [
      "values that are not valid",
      `hosted:
  local:
    default: yes
    hostnames: [https://a.corp]
    anonymousPush: never
    immutableTags: ["**:v 1"]
    quota: 10
    maxManifestSize: 1GiB
    uploadExpiry: 30s
`,
      [
        ':3: hosted.local.default: got "yes"; expected true or false',
        ':4: hosted.local.hostnames[0]: got "https://a.corp"; expected a host in lower case, such as registry.corp',
        ':5: hosted.local.anonymousPush: got "never"; expected one of loopback, anywhere, none',
        ':6: hosted.local.immutableTags[0]: got "**:v 1"; expected a pattern over repository[:tag] with * and **, such as "**:v*"',
        ":7: hosted.local.quota: got 10; expected a size with a unit such as 200GiB, or 0",
        ':8: hosted.local.maxManifestSize: got "1GiB"; expected a size from 64KiB to 64MiB, such as 4MiB',
        ':9: hosted.local.uploadExpiry: got "30s"; expected a duration from 1m to 90d, such as 24h',
      ],
    ],
    [
      "rules of retention that are not valid, or keep nothing",
      `hosted:
  local:
    retention:
      rules:
        - { match: "ci/**" }
        - { match: "a/**", keepTags: [] }
        - { keepNewest: 1 }
        - { match: b, keepNewest: 0 }
        - { match: c, keepPulledWithin: 1m }
        - { match: d, keepTags: ["a:b"] }
      untagged: 1m
`,
      [
        ":5: hosted.local.retention.rules[0]: got a rule that keeps no tag; expected keepNewest, keepPulledWithin or keepTags beside match",
        ":6: hosted.local.retention.rules[1]: got a rule that keeps no tag; expected keepNewest, keepPulledWithin or keepTags beside match",
        ':7: hosted.local.retention.rules[2].match: got no value; expected a pattern over repository[:tag] with * and **, such as "ci/**"',
        ":8: hosted.local.retention.rules[3].keepNewest: got 0; expected a whole number from 1 to 1000000",
        ':9: hosted.local.retention.rules[4].keepPulledWithin: got "1m"; expected a duration of at least 1h, such as 30d, or forever',
        ':10: hosted.local.retention.rules[5].keepTags[0]: got "a:b"; expected a pattern over tags with *, such as "v*"',
        ':11: hosted.local.retention.untagged: got "1m"; expected a duration of at least 1h, such as 7d, or forever',
      ],
    ],
  ];
  for (const [name, yaml, faults] of FAULTS) {
    void it(`may not have ${name}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const printed = printedFaults(await folder.loadText(yaml));
      assert.deepEqual(
        printed,
        faults.map((fault) => `c.yaml${fault}`),
      );
    });
  }

  void it("have a schedule of five valid fields that is due some day", async (test) => {
    const folder = await makeConfigFolder(test);
    const faultsOf = async (schedule: string): Promise<string[]> => {
      const text = `hosted:\n  local:\n    retention:\n      schedule: ${JSON.stringify(schedule)}\n`;
      return printedFaults(await folder.loadText(text));
    };
    for (const good of ["0 3 * * *", "*/5 0-6 1,15 JAN-MAR SUN", "0 0 29 2 *"])
      assert.deepEqual(await faultsOf(good), [], good);
    for (const bad of [
      "",
      "0 3 * *",
      "* * * * * *",
      "@daily",
      "61 * * * *",
      "0 3 * * XYZ",
      "0 0 30 2 *",
      "2030-01-01T00:00:00",
    ]) {
      const [fault = "", ...others] = await faultsOf(bad);
      assert.deepEqual(others, [], bad);
      assert.match(
        fault,
        /^c\.yaml:4: hosted\.local\.retention\.schedule: got/,
      );
    }
  });
});

void describe("warnings about pushes", () => {
  const HUB = "upstreams: { docker.io: { hostnames: [hub.corp] } }\n";
  const cases: readonly (readonly [string, RegExp | undefined])[] = [
    [
      "hosted: { local: { default: true } }",
      /^c\.yaml:1: hosted\.local\.default: got true while docker\.io is mirrored; a dockerd .* registry-mirrors asks for library\/nginx without a registry.*upstreams\.docker\.io\.hostnames$/,
    ],
    [`${HUB}hosted: { local: { default: true } }`, undefined],
    [
      "upstreams: { quay.io: }\nhosted: { local: { default: true } }",
      undefined,
    ],
    [
      "listen: 0.0.0.0:5000\nhosted: { local: { anonymousPush: anywhere } }",
      /^c\.yaml:2: hosted\.local\.anonymousPush: got anywhere, with which every client that reaches this server may push and delete; expected access with users/,
    ],
    ["hosted: { local: { anonymousPush: anywhere } }", undefined],
    [
      "listen: 0.0.0.0:5000\nhosted: { local: { anonymousPush: anywhere } }\naccess: { anonymousNetworks: [10.0.0.0/8] }",
      undefined,
    ],
    [
      'access: { anonymous: pull, rules: [{ who: ["*"], repositories: ["local/**"], actions: [pull, push] }] }',
      /^c\.yaml:1: access\.rules\[0\]\.actions: got push or delete while every client may pull without a password and none is asked for; expected anonymous: none, or anonymousNetworks; dockerd and podman/,
    ],
  ];
  for (const [text, want] of cases) {
    void it(`${want === undefined ? "do not appear" : "appear"} for ${JSON.stringify(text)}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const result = await folder.loadText(text);
      assert.ok(result.ok);
      const warnings = printedWarnings(result);
      assert.equal(
        warnings.length,
        want === undefined ? 0 : 1,
        String(warnings),
      );
      if (want !== undefined) assert.match(warnings[0] ?? "", want);
    });
  }
});

void describe("notifications", () => {
  void it("hide everything of a URL except its host, in the description and in faults", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("headers", "Authorization: Bearer hunter2\n");
    const config = configOf(
      await folder.loadText(`notifications:
  - { url: "https://user:hunter2@hooks.corp/hunter2?token=hunter2", headersFile: headers }
  - { url: "https://hooks.corp" }
`),
    );
    const described = describeConfig(config);
    const text = await formatConfig(described);
    assert.ok(!text.includes("hunter2") && !text.includes("user"), text);
    assert.deepEqual(described["notifications"], [
      {
        url: "https://hooks.corp/[redacted]",
        headersFile: `${folder.path}/headers`,
        events: ["push", "delete"],
      },
      { url: "https://hooks.corp", events: ["push", "delete"] },
    ]);
    assert.ok(!JSON.stringify(config).includes("hunter2"));
  });

  const FAULTS: readonly (readonly [string, string, string])[] = [
    [
      "{ url: ftp://hunter2.corp }",
      "",
      "c.yaml:2: notifications[0].url: got a text; expected an absolute http or https URL, such as https://hooks.corp/entrepot",
    ],
    [
      "{ events: [push] }",
      "",
      "c.yaml:2: notifications[0].url: got no value; expected an absolute http or https URL, such as https://hooks.corp/entrepot",
    ],
    [
      "{ url: https://a.corp, events: [] }",
      "",
      "c.yaml:2: notifications[0].events: got an empty list; expected a list of push, pull, delete and mount",
    ],
    [
      "{ url: https://a.corp, headersFile: nowhere }",
      "",
      "c.yaml:2: notifications[0].headersFile: got FOLDER/nowhere (no such file); expected a readable file no larger than 16 KiB",
    ],
    ...(
      [
        ["hunter2", "line 1 is not a header", "lines NAME: VALUE"],
        ["A: b\n\nB hunter2: x", "line 3 is not a header", "lines NAME: VALUE"],
        ["A: hunter2\u0000", "line 1 is not a header", "lines NAME: VALUE"],
        ["Host: hunter2", "line 1 has the header host", "other headers"],
        ["A: x\na: hunter2", "line 2 repeats a header", "each header once"],
        [
          Array.from({ length: 33 }, (_, i) => `H${i}: x`).join("\n"),
          "33 headers",
          "at most 32 headers",
        ],
      ] as const
    ).map(
      ([content, seen, expected]) =>
        [
          "{ url: https://a.corp, headersFile: headers }",
          content,
          `c.yaml:2: notifications[0].headersFile: got FOLDER/headers (${seen}); expected ${expected}`,
        ] as const,
    ),
  ];
  for (const [entry, headers, want] of FAULTS) {
    void it(`report ${want}`, async (test) => {
      const folder = await makeConfigFolder(test);
      await folder.write("headers", headers);
      const result = await folder.loadText(`notifications:\n  - ${entry}\n`);
      assert.deepEqual(printedFaults(result), [
        want.replace("FOLDER", folder.path),
      ]);
    });
  }

  void it("reject secrets that other users may read", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("headers", "A: b\n", 0o644);
    const byFile = await folder.loadText(
      "notifications: [{ url: https://a.corp, headersFile: headers }]",
    );
    assert.match(
      printedFaults(byFile).join("\n"),
      /^c\.yaml:1: notifications\[0\]\.headersFile: got .*mode 0644, readable by every user/,
    );
    for (const url of [
      "https://a:hunter2@b.corp",
      "https://b.corp/?t=hunter2",
    ]) {
      const text = `notifications: [{ url: "${url}" }]`;
      await folder.write("open.yaml", text, 0o644);
      const faults = printedFaults(
        await folder.load({ configFile: "open.yaml" }),
      ).join("\n");
      assert.match(faults, /notifications\[0\]\.url: got .*mode 0644/);
      assert.ok(!faults.includes("hunter2"));
    }
  });
});

void describe("the changes from the defaults", () => {
  const cases: readonly (readonly [string, Record<string, unknown>])[] = [
    ["", {}],
    ["hosted: { local: }", {}],
    ["hosted: {}", { hosted: {} }],
    [
      "hosted: { local: { quota: 1GiB } }",
      { hosted: { local: { quota: "1GiB" } } },
    ],
    ["hosted: { team: }", { hosted: { team: {} } }],
    [
      "hosted: { local: { default: true, retention: {} } }",
      { hosted: { local: { default: true, retention: {} } } },
    ],
    [
      "hosted: { local: { retention: { untagged: 8d, rules: [{ match: a, keepNewest: 3 }] } } }",
      {
        hosted: {
          local: {
            retention: {
              untagged: "8d",
              rules: [{ match: "a", keepNewest: 3, keepTags: [] }],
            },
          },
        },
      },
    ],
    [
      "upstreams: { local: { endpoints: [http://127.0.0.1:1] } }",
      {
        upstreams: { local: { endpoints: ["http://127.0.0.1:1"] } },
        hosted: {},
      },
    ],
  ];
  for (const [text, want] of cases) {
    void it(`are ${JSON.stringify(want)} for ${JSON.stringify(text)}, and mean the same`, async (test) => {
      const folder = await makeConfigFolder(test);
      const folders = { cwd: folder.path, home: folder.path };
      const config = configOf(await folder.loadText(text));
      const changes = describeChanges(config, folders);
      assert.deepEqual(changes, want);
      const again = await folder.loadText(await formatConfig(changes));
      assert.deepEqual(configOf(again), config);
      const whole = await folder.loadText(
        await formatConfig(describeConfig(config)),
      );
      assert.deepEqual(configOf(whole).hosted, config.hosted);
    });
  }
});
