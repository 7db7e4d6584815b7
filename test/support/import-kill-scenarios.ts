import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { runImport } from "../../src/cli/content/import/import.ts";
import type { ImportReport } from "../../src/images/bundles/bundle.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import {
  blobMembers,
  indexMember,
  layoutMember,
  tarOf,
} from "./bundle-archive.ts";
import { CollectedOutput } from "./collected-output.ts";
import { buildArtifact, buildImage, buildMultiArch } from "./image-builder.ts";
import { quietLog } from "./pulling-mirror.ts";

/** One layer has the size that a thread hashes. */
const app = buildImage({ seed: "app", layers: [1_200_000, 2_000] });
const next = buildImage({ seed: "next", layers: [...app.layers, 900] });
const multi = buildMultiArch({ seed: "multi", layers: [3_000] });
const signature = buildArtifact({
  seed: "signature",
  artifactType: "application/vnd.example.signature",
  subject: app.manifest,
});
const IMAGES = { app, next, multi };
const MEMBERS = blobMembers(app, next, multi, signature);

/** An import that may be killed at any system call. */
export interface ImportKillScenario {
  readonly name: string;
  readonly into: "local/site" | undefined;
  /** Runs it over a folder made by {@link prepareImport}. */
  readonly run: (dir: string) => Promise<void>;
}

export const IMPORT_KILL_SCENARIOS: readonly ImportKillScenario[] = [
  {
    name: "import of mirrored images",
    into: undefined,
    run: async (dir) => {
      await importBundle(dir, undefined);
    },
  },
  {
    name: "import into a hosted registry",
    into: "local/site",
    run: async (dir) => {
      await importBundle(dir, "local/site");
    },
  },
];

/** Writes a bundle, and the configuration of a mirror that never ran. */
export async function prepareImport(dir: string): Promise<void> {
  const entries = Object.entries(IMAGES).map(([name, { manifest }]) => ({
    of: manifest,
    annotations: { "io.containerd.image.name": `docker.io/library/${name}:1` },
  }));
  writeFileSync(
    join(dir, "bundle.tar"),
    await tarOf([
      layoutMember(),
      indexMember([...entries, { of: signature.manifest }]),
      ...MEMBERS,
    ]),
  );
  writeFileSync(
    join(dir, "entrepot.yaml"),
    JSON.stringify({
      operator: { listen: false },
      storage: { root: "data" },
      eviction: { minFree: 0 },
    }),
  );
}

async function importBundle(
  dir: string,
  into: string | undefined,
): Promise<ImportReport> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const code = await runImport({
    bundle: "bundle.tar",
    into,
    name: undefined,
    isPinned: false,
    configFile: join(dir, "entrepot.yaml"),
    json: true,
    signal: new AbortController().signal,
    env: {},
    cwd: dir,
    stdin: new PassThrough(),
    stdout,
    stderr,
  });
  assert.deepEqual([code, stderr.text], [0, ""]);
  return JSON.parse(stdout.text) as ImportReport;
}

/**
 * Asserts that the same command, run again, writes only the blobs that were not published before, and
 * leaves every image complete and nothing for a scrub to find.
 */
export async function judgeImport(
  dir: string,
  { into }: ImportKillScenario,
): Promise<void> {
  const root = join(dir, "data");
  const layout = diskLayout(root);
  const published = (): string[] =>
    existsSync(layout.blobFolder("sha256"))
      ? readdirSync(layout.blobFolder("sha256")).filter((name) =>
          /^[0-9a-f]{64}$/.test(name),
        )
      : [];
  const before = published().length;
  const { blobs, images } = await importBundle(dir, into);
  assert.deepEqual([before + blobs, images.length], [MEMBERS.length, 3]);
  assert.equal(published().length, MEMBERS.length);
  const { findings } = await scrubRoot({
    root,
    clock: systemClock,
    isRepair: false,
  });
  assert.deepEqual(findings, []);
  const storage = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
  });
  const { index, upkeep } = storage;
  await upkeep.recovered();
  for (const [name, { manifest }] of Object.entries(IMAGES)) {
    const { digest } = manifest;
    const key = into
      ? keyOf("local", `site/library/${name}`)
      : keyOf("docker.io", `library/${name}`);
    assert.equal((await index.getTag(key, tag("1")))?.digest, digest);
    assert(await index.isComplete(key, digest, "repository"));
  }
  if (into === undefined) {
    const key = keyOf("docker.io", "library/app");
    const list = await index.getReferrers(key, app.manifest.digest);
    assert.match(String(list?.body), new RegExp(signature.manifest.digest));
  }
  assert.deepEqual(await index.listIntents(), []);
  // What a killed import was writing can't be continued.
  await upkeep.clearLeftovers(Infinity);
  assert.deepEqual(
    readdirSync(layout.partialFolder).filter((name) => name !== "boot-id"),
    [],
  );
  await storage.close();
}
