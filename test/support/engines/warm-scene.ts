import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Digest } from "../../../src/oci/digest.ts";
import type { AfterTest } from "../after-test.ts";
import type { ChildMirror } from "../child-mirror.ts";
import { Child } from "../child-process.ts";
import { RealRegistry } from "../real-registry.ts";
import { tempDir } from "../temp-dir.ts";
import { TagPublisher } from "./published-tags.ts";

const MAIN = join(import.meta.dirname, "../../../src/main.ts");

/** Five tags that a list selects in a repository, and others that it does not. */
interface Selection {
  /** A key of a registry in the YAML of `skopeo sync`. */
  readonly key: string;
  readonly value: unknown;
  readonly tags: readonly string[];
  readonly others: readonly string[];
}

const SELECTIONS: readonly Selection[] = [
  {
    key: "images",
    value: ["1.0", "1.1", "2", "latest", "v3"],
    tags: ["1.0", "1.1", "2", "latest", "v3"],
    others: ["0.9", "old"],
  },
  {
    key: "images",
    value: [],
    tags: ["a", "b", "1.0", "1.0-alpine", "latest"],
    others: [],
  },
  {
    key: "images-by-tag-regex",
    value: "^(?i:V)?1\\.\\d+\\z",
    tags: ["1.0", "1.1", "1.12", "v1.3", "V1.4"],
    others: ["2.0", "1.0-alpine", "x1.0"],
  },
  {
    key: "images-by-semver",
    value: ">=1.2, <2, !=1.3 || ^3.1",
    tags: ["1.2.0", "1.2.1", "1.10", "v3.1.0", "3.2"],
    others: ["1.1.9", "1.3.5", "2.0.0", "1.4.0-rc.1", "3.0.0", "latest"],
  },
];

const REPOSITORIES = 40;
export const TAGS_PER_REPOSITORY = 5;

/** Two registries with 20 repositories each, and a list that selects five tags in each repository. */
export interface WarmScene {
  readonly registries: readonly [RealRegistry, RealRegistry];
  /** The YAML of `skopeo sync`. */
  readonly list: string;
  /** By reference, as in `127.0.0.1:5000/team/app:1`. */
  readonly selected: ReadonlyMap<string, Digest>;
}

export async function publishWarmScene(test: AfterTest): Promise<WarmScene> {
  const registries = [
    await RealRegistry.start(test),
    await RealRegistry.start(test),
  ] as const;
  const selected = new Map<string, Digest>();
  const list: Record<string, Record<string, unknown>> = {};
  await Promise.all(
    registries.map(async (registry, at) => {
      const publisher = new TagPublisher(test, registry);
      const keys: Record<string, Record<string, unknown>> = {};
      for (let i = at; i < REPOSITORIES; i += registries.length) {
        // Both registries have repositories of every kind.
        const { key, value, tags, others } = selectionOf(i >> 1);
        const repository = `team-${i % 3}/app-${i}`;
        const digests = await publisher.publish(repository, tags, others);
        for (const [tag, digest] of digests) {
          selected.set(`${registry.host}/${repository}:${tag}`, digest);
        }
        keys[key] = { ...keys[key], [repository]: value };
      }
      list[registry.host] = { "tls-verify": false, ...keys };
    }),
  );
  return { registries, list: JSON.stringify(list, null, 2), selected };
}

function selectionOf(index: number): Selection {
  const selection = SELECTIONS[index % SELECTIONS.length];
  assert(selection !== undefined);
  return selection;
}

/** The configuration of a mirror of the scene's registries. */
export function warmConfig({
  registries,
}: WarmScene): Readonly<Record<string, unknown>> {
  return {
    upstreams: Object.fromEntries(
      registries.map(({ host, origin }) => [host, { endpoints: [origin] }]),
    ),
  };
}

export interface WarmRun<T> {
  readonly code: number | null;
  /** What `--json` printed. */
  readonly printed: T;
  readonly stderr: string;
}

/** Runs `entrepot warm LIST… --json` for a running mirror. @param list one text, or several by file name */
export async function runWarm<T>(
  test: AfterTest,
  mirror: ChildMirror,
  list: string | Readonly<Record<string, string>>,
  ...options: readonly string[]
): Promise<WarmRun<T>> {
  const dir = await tempDir(test, "warm-");
  const lists = typeof list === "string" ? { "list.yaml": list } : list;
  const files: string[] = [];
  for (const [name, text] of Object.entries(lists)) {
    const file = join(dir, name);
    await writeFile(file, text);
    files.push(file);
  }
  const child = new Child(test, {
    command: process.execPath,
    args: [
      MAIN,
      "warm",
      ...files,
      `--config=${mirror.configFile}`,
      "--json",
      ...options,
    ],
    // The file lets the system choose the port.
    env: { ENTREPOT_OPERATOR__LISTEN: new URL(mirror.operatorOrigin).host },
  });
  const { code } = await child.exited;
  const textOf = (stream: "stdout" | "stderr"): string =>
    child.lines
      .filter((line) => line.stream === stream)
      .map(({ text }) => text)
      .join("\n");
  const stderr = textOf("stderr");
  const stdout = textOf("stdout");
  assert.notEqual(stdout, "", stderr);
  return { code, printed: JSON.parse(stdout) as T, stderr };
}
