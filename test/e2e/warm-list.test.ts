import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import type { Job } from "../../src/images/jobs/job.ts";
import type { WarmPlan } from "../../src/images/warm/warm-plan.ts";
import { afterSuite } from "../support/after-test.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { selectBySkopeo } from "../support/engines/skopeo-sync.ts";
import {
  publishWarmScene,
  runWarm,
  TAGS_PER_REPOSITORY,
  warmConfig,
  type WarmScene,
} from "../support/engines/warm-scene.ts";
import type { LoggedRequest, RealRegistry } from "../support/real-registry.ts";

const IMAGES = 200;
const REPOSITORIES = 40;
/** Those of images that share a layer in their repository, and one in their registry. */
const LAYERS = REPOSITORIES + 2;

void describe("a list of 200 tags in 40 repositories of two registries", () => {
  const suite = afterSuite();
  let scene: WarmScene;

  before(async () => {
    await requireCommands(["docker-registry", "containerd", "ctr", "runc"]);
    scene = await publishWarmScene(suite);
    assert.equal(scene.selected.size, IMAGES);
  });

  void it("selects the same references as a current skopeo sync", async (test) => {
    const programs = await fetchNewerClients();
    const theirs = await selectBySkopeo(test, programs, scene.list);
    assert.deepEqual(theirs.sort(), [...scene.selected.keys()].sort());
  });

  void it("is fetched once, and pulled by an engine with both registries off", async (test) => {
    const mirror = await ChildMirror.start(test, { config: warmConfig(scene) });
    await forgetRequests(scene);

    const plan = await runWarm<WarmPlan>(test, mirror, scene.list, "--dry-run");
    assert.equal(plan.code, 0, plan.stderr);
    assert.deepEqual(sumOf(plan.printed), {
      images: IMAGES,
      present: 0,
      manifests: IMAGES,
      blobs: IMAGES + LAYERS,
      pulls: 0,
    });
    assert.deepEqual(
      plan.printed.images.map(({ ref }) => ref).sort(),
      [...scene.selected.keys()].sort(),
    );
    assert.deepEqual(await blobRequests(scene), []);

    await forgetRequests(scene);
    const first = await runWarm<Job>(test, mirror, scene.list);
    assert.deepEqual(outcomeOf(first.printed), DONE, first.stderr);
    assert.equal(first.code, 0);
    const blobs = await blobRequests(scene);
    assert.equal(blobs.length, IMAGES + LAYERS, blobs.map(lineOf).join("\n"));
    const planned = plan.printed.upstreams.reduce(
      (sum, { bytes }) => sum + bytes,
      0,
    );
    const received = blobs.reduce((sum, { bytes }) => sum + bytes, 0);
    assert.equal(received, planned);

    await forgetRequests(scene);
    const second = await runWarm<Job>(test, mirror, scene.list);
    assert.deepEqual(outcomeOf(second.printed), DONE, second.stderr);
    assert.equal(second.code, 0);
    assert.deepEqual(await blobRequests(scene), []);
    assert.deepEqual(
      (await manifestRequests(scene)).sort(),
      [...scene.selected.keys()].map((ref) => `HEAD ${ref}`).sort(),
    );
    const again = await runWarm<WarmPlan>(
      test,
      mirror,
      scene.list,
      "--dry-run",
    );
    assert.deepEqual(sumOf(again.printed), {
      images: IMAGES,
      present: IMAGES,
      manifests: 0,
      blobs: 0,
      pulls: 0,
    });

    for (const registry of scene.registries) await registry.stop();
    test.after(() => startAll(scene));
    const engine = await Containerd.start(test, mirror);
    const pulled = await engine.pullAll([...scene.selected.keys()]);
    assert.deepEqual(pulled, scene.selected);
  });

  void it("is fetched too when lists of other tools name its images", async (test) => {
    const mirror = await ChildMirror.start(test, { config: warmConfig(scene) });
    const refs = [...scene.selected.keys()];
    const image = (at: number): string => refs[at] ?? "";
    const lists = {
      "compose.yaml": `services:
  a: {image: "${image(0)}", platform: linux/x86_64}
  b: {build: .}
  c: {image: "\${REGISTRY:-${image(1).split("/")[0]}}/${image(1).split("/").slice(1).join("/")}"}
`,
      "pods.json": JSON.stringify({
        apiVersion: "v1",
        kind: "List",
        items: [
          {
            apiVersion: "batch/v1",
            kind: "CronJob",
            spec: {
              jobTemplate: {
                spec: {
                  template: {
                    spec: {
                      initContainers: [{ name: "i", image: image(2) }],
                      containers: [{ name: "c", image: image(3) }],
                    },
                  },
                },
              },
            },
          },
        ],
      }),
      "hauler.yaml": `apiVersion: content.hauler.cattle.io/v1
kind: Images
spec: {images: [{name: "${image(4)}", platform: linux/amd64}]}
---
apiVersion: content.hauler.cattle.io/v1
kind: Charts
spec: {charts: [{name: x}]}
`,
      "imageset.yaml": `apiVersion: mirror.openshift.io/v2alpha1
kind: ImageSetConfiguration
mirror: {additionalImages: [{name: "${image(5)}"}], operators: [{catalog: x}]}
`,
      "images.txt": `# images\n${image(6)}\n${image(7)}@${scene.selected.get(image(7))}\n`,
    };
    const { code, printed, stderr } = await runWarm<Job>(test, mirror, lists);
    assert.deepEqual(
      [code, printed.state, printed.done, printed.total, printed.errors],
      [0, "done", 8, 8, []],
      stderr,
    );
    assert.match(
      stderr,
      /compose\.yaml:3: the service "b" is built, not pulled/,
    );
    assert.match(stderr, /hauler\.yaml:5: Charts are not covered/);
    assert.match(stderr, /imageset\.yaml:3: mirror\.operators is not covered/);
  });

  void it("is fetched from the registry that answers, and completed when the other one is back", async (test) => {
    const mirror = await ChildMirror.start(test, { config: warmConfig(scene) });
    const [up, down] = scene.registries;
    await down.stop();
    test.after(() => startAll(scene));
    await forgetRequests({ registries: [up] });

    const first = await runWarm<Job>(test, mirror, scene.list);
    assert.equal(first.code, 1);
    assert.equal(first.printed.state, "failed");
    // The tags that the list names, and one line for each repository whose tags are not known.
    const named = REPOSITORIES / 8;
    const failures = named * TAGS_PER_REPOSITORY + 3 * named;
    assert.equal(first.printed.errorCount, failures, first.stderr);
    for (const { ref } of first.printed.errors) {
      assert.ok(ref.includes(down.host), ref);
    }
    assert.equal(
      first.printed.total - first.printed.done,
      0,
      "an image was not tried",
    );
    assert.equal(
      (await blobRequests({ registries: [up] })).length,
      (IMAGES + LAYERS) / 2,
    );

    await down.start();
    // A restart forgets that the registry was down.
    await mirror.restart();
    await forgetRequests(scene);
    const second = await runWarm<Job>(test, mirror, scene.list);
    assert.deepEqual(outcomeOf(second.printed), DONE, second.stderr);
    assert.deepEqual(await blobRequests({ registries: [up] }), []);
    assert.equal(
      (await blobRequests({ registries: [down] })).length,
      (IMAGES + LAYERS) / 2,
    );
  });
});

const DONE = { state: "done", done: IMAGES, total: IMAGES, errors: [] };

function outcomeOf({ state, done, total, errors }: Job): unknown {
  return { state, done, total, errors };
}

function sumOf({ upstreams }: WarmPlan): Record<string, number> {
  const sum = { images: 0, present: 0, manifests: 0, blobs: 0, pulls: 0 };
  for (const upstream of upstreams) {
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) {
      sum[key] += upstream[key];
    }
  }
  return sum;
}

interface Registries {
  readonly registries: readonly RealRegistry[];
}

async function forgetRequests({ registries }: Registries): Promise<void> {
  for (const registry of registries) await registry.forgetRequests();
}

async function startAll({ registries }: Registries): Promise<void> {
  for (const registry of registries) {
    await registry.stop();
    await registry.start();
  }
}

async function blobRequests({
  registries,
}: Registries): Promise<readonly LoggedRequest[]> {
  const all = [];
  for (const registry of registries) all.push(...(await registry.requests()));
  return all.filter(({ target }) => target.includes("/blobs/"));
}

/** As in `HEAD 127.0.0.1:5000/team/app:1`. */
async function manifestRequests({ registries }: Registries): Promise<string[]> {
  const lines: string[] = [];
  for (const registry of registries) {
    for (const { method, target } of await registry.requests()) {
      const [, repository, reference] =
        /^\/v2\/(.+)\/manifests\/(.+)$/.exec(target) ?? [];
      if (repository === undefined) continue;
      lines.push(`${method} ${registry.host}/${repository}:${reference}`);
    }
  }
  return lines;
}

function lineOf({ method, target, status }: LoggedRequest): string {
  return `${method} ${target} ${status}`;
}
