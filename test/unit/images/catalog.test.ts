import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type CatalogNames,
  createCatalog,
} from "../../../src/images/catalog.ts";
import type {
  RepositoryKey,
  RepositoryName,
} from "../../../src/oci/reference.ts";

const COUNT = 10_000;

/** An index of two upstreams that records its calls. */
function open() {
  const keys: RepositoryKey[] = ["a.example", "b.example"].flatMap((upstream) =>
    Array.from({ length: COUNT / 2 }, (_, i) => ({
      upstream,
      repository: `r${String(i).padStart(5, "0")}` as RepositoryName,
    })),
  );
  const names = keys.map((key) => `${key.upstream}/${key.repository}`);
  const steps: number[] = [];
  return {
    steps,
    names,
    index: {
      listRepositories: (n: number, last?: string) => {
        steps.push(n);
        const at =
          last === undefined ? 0 : names.findIndex((name) => name > last);
        return Promise.resolve(at === -1 ? [] : keys.slice(at, at + n));
      },
      listHostedRepositories: () => Promise.resolve([]),
    },
  };
}

function maySee(name: string): boolean {
  return /[37]$/.test(name);
}

/** Names of mirrored registries only. */
function mirrored(
  listedName: CatalogNames["listedName"] = (upstream) => upstream,
): CatalogNames {
  return { listedName, isHosted: () => false, isOfDefault: () => false };
}

void describe("a page of the catalog", () => {
  void it("takes few steps even if the client may see no repository, for any page size (R1)", async () => {
    for (const n of [1, 2, 999, 1_000]) {
      const { index, steps } = open();
      const page = await createCatalog(index)(
        { n, last: undefined },
        undefined,
        () => false,
        mirrored(),
      );
      assert.deepEqual(page, { entries: [], nextLast: undefined });
      assert.ok(steps.length <= COUNT / 1_000 + 6, `${n}: ${steps.length}`);
    }
  });

  void it("leads to every visible repository once, and to no other", async () => {
    for (const n of [1, 7, 1_000]) {
      const { index, names } = open();
      const wanted = names.filter(maySee).slice(0, 40 * n);
      const seen: string[] = [];
      let last: string | undefined;
      while (seen.length < wanted.length) {
        const page = await createCatalog(index)(
          { n, last },
          undefined,
          maySee,
          mirrored(),
        );
        seen.push(...page.entries);
        last = page.nextLast;
        if (last === undefined) break;
        assert.ok(maySee(last));
      }
      assert.deepEqual(seen, wanted);
    }
  });

  void it("of one upstream ends with its last repository", async () => {
    const { index, steps } = open();
    const page = await createCatalog(index)(
      { n: 5, last: "r04997" },
      "a.example",
      () => true,
      mirrored(),
    );
    assert.deepEqual(page, {
      entries: ["r04998", "r04999"],
      nextLast: undefined,
    });
    assert.deepEqual(steps, [6]);
  });

  void it("sorts upstreams by their displayed names, and omits upstreams without one", async () => {
    const upstreams = ["a.corp:5000", "a.corp:5001", "b", "b-c", "z.corp:1"];
    const keys = upstreams
      .flatMap((upstream) =>
        ["r1", "r2", "r3"].map((repository) => ({
          upstream,
          repository: repository as RepositoryName,
        })),
      )
      .toSorted((one, other) => (pathOf(one) < pathOf(other) ? -1 : 1));
    const index = {
      listRepositories: (n: number, last = "") =>
        Promise.resolve(keys.filter((key) => pathOf(key) > last).slice(0, n)),
      listHostedRepositories: () => Promise.resolve([]),
    };
    const listed: Readonly<Record<string, string>> = {
      "a.corp:5000": "zeta",
      b: "b",
      "b-c": "b-c",
      "z.corp:1": "a.alias",
    };
    const all = ["a.alias", "b-c", "b", "zeta"].flatMap((name) =>
      [1, 2, 3].map((i) => `${name}/r${i}`),
    );
    for (const n of [1, 2, 3, 4, 5, 12, 100]) {
      const seen: string[] = [];
      let last: string | undefined;
      do {
        const page = await createCatalog(index)(
          { n, last },
          undefined,
          () => true,
          mirrored((name) => listed[name]),
        );
        seen.push(...page.entries);
        last = page.nextLast;
      } while (last !== undefined);
      assert.deepEqual(seen, all, `pages of ${n}`);
    }
    for (const last of ["a", "b", "b-c/r9", "b/", "y", "zeta/r2", "zz"]) {
      const page = await createCatalog(index)(
        { n: 100, last },
        undefined,
        () => true,
        mirrored((name) => listed[name]),
      );
      assert.deepEqual(
        page.entries,
        all.filter((name) => name > last),
        last,
      );
    }
  });

  void it("merges hosted repositories without a prefix into those of other registries", async () => {
    const mirroredNames = ["docker.io/library/a", "quay.io/b"];
    const hosted: Readonly<Record<string, readonly string[]>> = {
      local: ["a", "docker", "docker.io/x", "e", "hidden", "team/app", "z"],
      other: ["app", "zed"],
    };
    const keys = [
      ...mirroredNames,
      ...["local", "other"].flatMap((registry) =>
        (hosted[registry] ?? []).map((name) => `${registry}/${name}`),
      ),
    ]
      .toSorted()
      .map((path) => ({
        upstream: path.slice(0, path.indexOf("/")),
        repository: path.slice(path.indexOf("/") + 1) as RepositoryName,
      }));
    const index = {
      listRepositories: (n: number, last = "") =>
        Promise.resolve(keys.filter((key) => pathOf(key) > last).slice(0, n)),
      listHostedRepositories: (registry: string, n: number, last = "") =>
        Promise.resolve(
          (hosted[registry] ?? [])
            .filter((name) => name > last)
            .slice(0, n) as RepositoryName[],
        ),
    };
    const names: CatalogNames = {
      listedName: (registry) => (registry === "local" ? "" : registry),
      isHosted: (registry) => registry in hosted,
      isOfDefault: (name) => !name.startsWith("docker.io/"),
    };
    const all = [
      "a",
      "docker",
      "docker.io/library/a",
      "e",
      "other/app",
      "other/zed",
      "quay.io/b",
      "team/app",
      "z",
    ];
    for (const n of [1, 2, 3, 5, 9, 100]) {
      const seen: string[] = [];
      let last: string | undefined;
      do {
        const page = await createCatalog(index)(
          { n, last },
          undefined,
          (name) => name !== "local/hidden",
          names,
        );
        assert.ok(page.entries.length <= n);
        seen.push(...page.entries);
        last = page.nextLast;
      } while (last !== undefined);
      assert.deepEqual(seen, all, `pages of ${n}`);
    }
    const page = await createCatalog(index)(
      { n: 3, last: "docker" },
      "local",
      () => true,
      names,
    );
    assert.deepEqual(page, {
      entries: ["docker.io/x", "e", "hidden"],
      nextLast: "hidden",
    });
  });
});

function pathOf({ upstream, repository }: RepositoryKey): string {
  return `${upstream}/${repository}`;
}
