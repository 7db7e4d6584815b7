import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import {
  checkNames,
  guardNames,
  NameConflictError,
  type NamedContent,
} from "../../../src/app/registry-names.ts";
import type {
  RepositoryKey,
  RepositoryName,
} from "../../../src/oci/reference.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { upstreamConfig } from "../../support/upstream-harness.ts";

/** @param hosted the registries of pushed content; @param paths all repositories */
function contentOf(
  hosted: readonly string[],
  paths: readonly string[],
): NamedContent {
  const keys = paths.toSorted().map((path): RepositoryKey => {
    const at = path.indexOf("/");
    const repository = path.slice(at + 1) as RepositoryName;
    return { upstream: path.slice(0, at), repository };
  });
  return {
    listHostedRegistries: () =>
      Promise.resolve(hosted.map((registry) => ({ registry, bytes: 1 }))),
    listRepositories: (limit, last = "") =>
      Promise.resolve(
        keys
          .filter(
            ({ upstream, repository }) => `${upstream}/${repository}` > last,
          )
          .slice(0, limit),
      ),
  };
}

const upstreams = [
  upstreamConfig([], { name: "quay.io", aliases: ["q", "hub"] }),
  upstreamConfig([], { name: "docker.io" }),
];
const hosted = [hostedConfig(), hostedConfig({ name: "team" })];

void describe("names of the configuration", () => {
  const cases: readonly {
    readonly name: string;
    readonly content: NamedContent;
    readonly conflicts?: readonly RegExp[];
    readonly orphans?: readonly string[];
  }[] = [
    { name: "of an empty index", content: contentOf([], []) },
    {
      name: "of content of their own kind",
      content: contentOf(
        ["local", "team"],
        ["local/a", "team/b", "quay.io/a", "docker.io/library/a"],
      ),
    },
    {
      name: "that only begin like another name",
      content: contentOf([], ["local.corp/a", "localx/a", "teams/a", "z/a"]),
    },
    {
      name: "of an upstream to which content was pushed",
      content: contentOf(["quay.io"], ["quay.io/a"]),
      conflicts: [
        /^upstreams\.quay\.io: got an upstream, although .* hosted\.quay\.io again/,
      ],
    },
    {
      name: "of an alias to which content was pushed",
      content: contentOf(["hub"], ["hub/a"]),
      conflicts: [/^upstreams\.quay\.io: got an upstream with the alias hub, /],
    },
    {
      name: "of hosted registries with mirrored content",
      content: contentOf([], ["local/a", "team/a/b"]),
      conflicts: [
        /^hosted\.local: got a hosted registry, .* entrepot rm 'local\/\*\*'$/,
        /^hosted\.team: /,
      ],
    },
    {
      name: "that are no longer configured",
      content: contentOf(["gone", "local"], ["gone/a", "local/a"]),
      orphans: ["gone"],
    },
  ];
  for (const { name, content, conflicts = [], orphans = [] } of cases) {
    void it(name, async () => {
      const found = await checkNames(content, { upstreams, hosted });
      assert.equal(found.conflicts.length, conflicts.length);
      for (const [index, want] of conflicts.entries()) {
        assert.match(found.conflicts[index]?.text ?? "", want);
      }
      assert.deepEqual(found.orphans, orphans);
    });
  }
});

function watch() {
  const calls: unknown[] = [];
  return {
    calls,
    set: {
      block: (names: readonly string[]) => void calls.push(["block", names]),
      reserve: (names: readonly string[]) =>
        void calls.push(["reserve", names]),
    },
    log: {
      warn: (_fields: unknown, text?: string) => void calls.push(text),
      error: (_fields: unknown, text?: string) => void calls.push(text),
    },
  };
}

void describe("the guard of names at the start", () => {
  const config = { upstreams, hosted };
  const conflicting = contentOf(["quay.io"], ["quay.io/a"]);

  void it("rejects names in conflict", async () => {
    const { calls, set, log } = watch();
    await assert.rejects(
      guardNames(config, {
        index: conflicting,
        recovered: Promise.resolve(),
        set,
        log,
      }),
      NameConflictError,
    );
    assert.deepEqual(calls, []);
  });

  void it("reserves and reports names that are no longer configured", async () => {
    const { calls, set, log } = watch();
    await guardNames(config, {
      index: contentOf(["gone"], ["gone/a"]),
      recovered: Promise.resolve(),
      set,
      log,
    });
    assert.deepEqual(calls, [
      ["reserve", ["gone"]],
      "hosted registries with content are not configured; their content stays and is not served",
    ]);
  });

  void it("blocks names in conflict if the index can answer only later", async () => {
    for (const isSlow of [true, false]) {
      const { calls, set, log } = watch();
      const recovered = Promise.withResolvers<void>();
      let isRestored = false;
      const index: NamedContent = {
        ...conflicting,
        // Slow: the first call waits; otherwise it fails, as while the storage is away.
        listHostedRegistries: async () => {
          if (isSlow) await recovered.promise;
          else if (!isRestored) throw new Error("away");
          return conflicting.listHostedRegistries();
        },
      };
      await guardNames(config, {
        index,
        recovered: recovered.promise,
        set,
        log,
        waitMs: 0,
      });
      assert.deepEqual(calls, []);
      isRestored = true;
      recovered.resolve();
      await setImmediate();
      assert.deepEqual(calls, [
        ["block", ["quay.io"]],
        "registries whose names belong to other stored content are not served",
      ]);
    }
  });
});
