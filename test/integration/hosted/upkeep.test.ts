import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { type HostedConfig, Secret } from "../../../src/config/config.ts";
import { HostedClient } from "../../support/hosted-client.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { startMirror, type TestMirror } from "../../support/mirror-harness.ts";
import { startHook } from "../../support/webhook.ts";

const FIRST = buildImage({ seed: "first", layers: [3_000, 100] });
const SECOND = buildImage({ seed: "second", layers: [5_000] });
const DAY_MS = 86_400_000;
const COLLECTED = "removed hosted blobs that nothing needs";

async function setUp(
  test: TestContext,
  registries: readonly HostedConfig[] = [hostedConfig()],
) {
  const hook = await startHook(test);
  const schedule = new ManualSchedule();
  const mirror = await startMirror(test, [], {
    hostedSchedule: schedule.start,
    config: {
      hosted: registries,
      notifications: [
        {
          url: new Secret(`http://127.0.0.1:${hook.port}/hook`),
          headers: new Map(),
          events: ["push", "pull", "delete", "mount"],
        },
      ],
    },
  });
  const client = (repository: string): HostedClient =>
    new HostedClient(mirror.port, repository);
  return { mirror, hook, schedule, client, app: client("local/team/app") };
}

function files(mirror: TestMirror): number {
  return readdirSync(join(mirror.root, "blobs/sha256")).length;
}

/** Runs the collection that a deletion has woken. */
function runNotified(mirror: TestMirror, schedule: ManualSchedule): void {
  mirror.clock.advance(26_000);
  assert.ok(schedule.delaysMs.includes(26_000));
  while (schedule.delaysMs[0] !== 26_000) schedule.runNext();
  schedule.runNext();
}

void describe("hosted content that is deleted", () => {
  void it("is off the disk half a minute later, although clients pulled it", async (test) => {
    const { mirror, schedule, app } = await setUp(test);
    await app.push(FIRST, "v1");
    await app.push(SECOND, "v2");
    for (const { digest } of FIRST.blobs)
      assert.equal((await app.get(`blobs/${digest}`)).status, 200);
    assert.equal(
      await mirror.metric('entrepot_hosted_bytes{registry="local"}'),
      await mirror.metric("entrepot_storage_bytes"),
    );
    assert.equal(files(mirror), 7);
    const deleted = await app.delete(`manifests/${FIRST.manifest.digest}`);
    assert.equal(deleted.status, 202);
    runNotified(mirror, schedule);
    await mirror.logged(COLLECTED);
    assert.equal(files(mirror), 3);
    for (const { digest } of FIRST.blobs)
      assert.equal((await app.head(`blobs/${digest}`)).status, 404);
    for (const { digest } of SECOND.blobs)
      assert.equal((await app.head(`blobs/${digest}`)).status, 200);
    assert.ok((await mirror.metric("entrepot_collected_bytes_total")) > 3_100);
  });

  void it("stays for an hour for a client that asked for it, and then is gone", async (test) => {
    const { mirror, schedule, app, client } = await setUp(test);
    await app.push(FIRST, "v1");
    const [layer] = FIRST.layers;
    assert.ok(layer);
    assert.equal((await app.head(`blobs/${layer.digest}`)).status, 200);
    await app.delete(`manifests/${FIRST.manifest.digest}`);
    runNotified(mirror, schedule);
    await mirror.logged(COLLECTED);
    assert.equal(files(mirror), 1);
    // The client may still push an image that names it, or mount it.
    const mounted = await client("local/team/web").ask(
      "POST",
      `blobs/uploads/?mount=${layer.digest}&from=local/team/app`,
    );
    assert.equal(mounted.status, 201);
    mirror.clock.advance(3_600_001);
    const seen = mirror.log.length;
    schedule.runNext();
    schedule.runNext();
    for (;;) {
      if (mirror.log.slice(seen).some(({ msg }) => msg === COLLECTED)) break;
      await mirror.get("/v2/");
    }
    assert.equal(files(mirror), 0);
  });
});

void describe("events of hosted repositories", () => {
  void it("are sent to webhooks with the names by which clients pull", async (test) => {
    const { mirror, hook, app } = await setUp(test, [
      hostedConfig({ isDefault: true }),
      hostedConfig({ name: "corp" }),
    ]);
    await app.push(SECOND, "v1");
    const corp = new HostedClient(mirror.port, "corp/app");
    await corp.ask(
      "POST",
      `blobs/uploads/?mount=${SECOND.config.digest}&from=team/app`,
    );
    await app.get("manifests/v1");
    await app.delete("manifests/v1");
    const seen = () => hook.received.flatMap(({ events }) => events);
    while (!seen().some(({ action }) => action === "delete"))
      await hook.until(hook.received.length + 1);
    const [first] = seen();
    assert.deepEqual(
      seen()
        .filter(({ target }) => target["tag"] !== undefined)
        .map(({ action, target }) => [
          action,
          target["repository"],
          target["tag"],
        ]),
      [
        ["push", "team/app", "v1"],
        ["pull", "team/app", "v1"],
        ["delete", "team/app", "v1"],
      ],
    );
    const mount = seen().find(({ action }) => action === "mount");
    assert.equal(mount?.target["repository"], "corp/app");
    assert.equal(mount.target["fromRepository"], "team/app");
    assert.match(
      String(first?.target["url"]),
      /^http:\/\/127\.0\.0\.1:\d+\/v2\/team\/app\//,
    );
  });
});

void describe("retention", () => {
  void it("runs on the schedule of its registry, and follows a reload", async (test) => {
    const retention = {
      schedule: "0 3 * * *",
      rules: [
        {
          match: "team/**",
          keepNewest: 1,
          keepPulledWithinMs: undefined,
          keepTags: [],
        },
      ],
      untaggedMs: DAY_MS,
    };
    const { mirror, hook, schedule, app } = await setUp(test);
    await app.push(FIRST, "v1");
    mirror.clock.advance(1_000);
    await app.push(SECOND, "v2");
    await mirror.reload({ hosted: [hostedConfig({ retention })] });
    // Both of these begin again with each run: the collection and the schedule of retention.
    const runAll = () => {
      for (let left = schedule.delaysMs.length; left > 0; left -= 1)
        schedule.runNext();
    };
    const deleted = "retention deleted tags and manifests of a hosted registry";
    runAll();
    while (!mirror.log.some(({ msg }) => msg === deleted)) {
      mirror.clock.advance(30_000);
      runAll();
      await mirror.get("/v2/");
    }
    assert.deepEqual(await app.tags(), ["v2"]);
    const events = hook.received.flatMap((one) => one.events);
    const actions = events.map(({ action, target }) => [action, target["tag"]]);
    assert.ok(
      actions.some(([action, tag]) => action === "delete" && tag === "v1"),
    );
    assert.equal((await app.get("manifests/v1")).status, 404);
    assert.equal(
      (await app.get(`manifests/${FIRST.manifest.digest}`)).status,
      200,
    );
  });
});
