import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { IndexRestoringError } from "../../../../../src/storage/metadata-index.ts";
import { gateHosted } from "../../../../../src/storage/local/durable/gated-index.ts";
import { HostedGate } from "../../../../../src/storage/local/durable/hosted-gate.ts";
import { digestOf } from "../../../../../src/oci/digest.ts";
import { OCI_MANIFEST } from "../../../../../src/oci/media-type.ts";
import { keyOf, tag } from "../../../../contract/metadata-index-contract.ts";
import { HostedStore, UNLIMITED } from "../../../../support/hosted-store.ts";

/** Returns whether the promise is settled after some turns of the event loop. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let isDone = false;
  promise.then(
    () => (isDone = true),
    () => (isDone = true),
  );
  for (let turn = 0; turn < 5; turn += 1) await nextTurn();
  return isDone;
}

void describe("requests while hosted lines are replayed", () => {
  void it("do not wait if nothing is replayed", async () => {
    const gate = new HostedGate();
    assert.equal(await gate.pass("local", false), false);
    await gate.passHosted();
    await gate.passAny();
  });

  void it("wait for the end in a hosted registry, whether found or not", async () => {
    const gate = new HostedGate();
    gate.begin(["local", "team"], true);
    const waits = [
      gate.pass("local", true),
      gate.pass("team", false),
      gate.passHosted(),
      gate.passAny(),
    ];
    for (const wait of waits) assert.equal(await isSettled(wait), false);
    assert.equal(await gate.pass("docker.io", true), false);
    assert.equal(await gate.pass("docker.io", false), false);
    gate.end();
    assert.deepEqual(await Promise.all(waits), [
      true,
      true,
      undefined,
      undefined,
    ]);
  });

  void it("wait for the journal if it may name the registry", async () => {
    const gate = new HostedGate();
    gate.begin([], false);
    const hosted = gate.pass("local", false);
    const mirrored = gate.pass("docker.io", false);
    const any = gate.passAny();
    assert.equal(await gate.pass("docker.io", true), false);
    assert.equal(await isSettled(mirrored), false);
    gate.expect(["local"]);
    assert.equal(await mirrored, true);
    assert.equal(await isSettled(hosted), false);
    assert.equal(await isSettled(any), false);
    gate.end();
    assert.equal(await hosted, true);
    await any;
  });

  void it("do not wait for a list of all repositories if none is hosted", async () => {
    const gate = new HostedGate();
    gate.begin([], false);
    const any = gate.passAny();
    gate.expect([]);
    await any;
    assert.equal(gate.isOn, true);
  });

  void it("wait for the replacement of an index that is replaced meanwhile", async () => {
    const gate = new HostedGate();
    gate.begin(["local"], true);
    const wait = gate.passHosted();
    gate.end();
    gate.begin(["local"], true);
    assert.equal(await isSettled(wait), false);
    gate.end();
    await wait;
  });

  void it("fail with IndexRestoringError after a bounded time", async () => {
    const gate = new HostedGate(5);
    gate.begin(["local"], true);
    await assert.rejects(gate.pass("local", true), IndexRestoringError);
    await assert.rejects(gate.passHosted(), IndexRestoringError);
    await assert.rejects(gate.passAny(), IndexRestoringError);
  });

  void it("wait in every method of hosted repositories", async (test) => {
    const { index } = await HostedStore.open(test);
    const gate = new HostedGate();
    gate.begin(["local"], true);
    const gated = gateHosted(index, gate);
    const key = keyOf("local", "team/app");
    const from = keyOf("local", "team/web");
    const digest = digestOf(Buffer.from("blob"));
    const record = { digest, sizeBytes: 4, storedAtMs: 0 };
    const manifest = {
      ...record,
      mediaType: OCI_MANIFEST,
      children: [],
      subject: undefined,
      artifactType: undefined,
      annotations: undefined,
    };
    const { quota, isImmutable } = UNLIMITED;
    const page = { artifactTypes: [], limit: 1, last: undefined };
    const answers: Readonly<Record<string, Promise<unknown>>> = {
      record: gated.recordHostedBlob(key, record, quota),
      mount: gated.mountHostedBlob(key, digest, from, 0, quota),
      repositories: gated.listBlobRepositories(digest, 1, undefined),
      claim: gated.claimHostedBlob(key, digest, 0),
      unlink: gated.unlinkHostedBlob(key, digest, isImmutable),
      put: gated.putHostedManifest(key, manifest, [], UNLIMITED),
      deleteTag: gated.deleteHostedTag(key, tag("v1"), isImmutable),
      deleteManifest: gated.deleteHostedManifest(key, digest, isImmutable),
      referrers: gated.listHostedReferrers(key, digest, page),
      tags: gated.listHostedTags(key, 1, undefined),
      untagged: gated.listUntaggedManifests(key, 1, undefined),
      names: gated.listHostedRepositories("local", 1, undefined),
      registries: gated.listHostedRegistries(),
      drop: gated.dropUnneededLinks(0, 1),
      preview: gated.previewCollection(0, 1),
    };
    for (const [name, answer] of Object.entries(answers)) {
      assert.equal(await isSettled(answer), false, name);
    }
    gate.end();
    await Promise.all(Object.values(answers));
  });
});
