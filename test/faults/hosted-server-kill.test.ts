import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Digest } from "../../src/oci/digest.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { HostedClient } from "../support/hosted-client.ts";
import { buildImage } from "../support/image-builder.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const REPOSITORIES = ["local/team/app", "second/web"] as const;
const ROUNDS = Math.round(40 * soakFactor(0.1));
const MAX_WRITES = 12;
const base = buildImage({ seed: "base", layers: [40_000] });

/** What the server answered for each tag: its digest, and the write that had no answer. */
interface TagState {
  digest: Digest | undefined;
  unanswered: (Digest | undefined)[];
}

void describe("a server that is killed while clients push and delete", () => {
  void it("has every acknowledged push and deletion from the first answer on, with the index or without", async (test) => {
    const seed = chooseSeed();
    const random = seededRandom(seed);
    const mirror = await ChildMirror.start(test, {
      config: { upstreams: {}, hosted: { local: {}, second: {} } },
    });
    const states = new Map<string, TagState>();
    let writes = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      let left = 1 + Math.floor(random() * MAX_WRITES);
      let killed: Promise<unknown> | undefined;
      const onAnswer = (): void => {
        writes += 1;
        left -= 1;
        if (left === 0) killed = mirror.kill();
      };
      await Promise.all(
        REPOSITORIES.map((repository) =>
          pushUntilKilled(mirror, repository, { round, states, onAnswer }),
        ),
      );
      await killed;
      const isLost = round % 2 === 1;
      if (isLost) {
        for (const suffix of ["", "-wal", "-shm"]) {
          rmSync(join(mirror.root, `index.sqlite${suffix}`), { force: true });
        }
      }
      await mirror.start();
      for (const [name, { digest, unanswered }] of states) {
        const [repository = "", tag = ""] = name.split(":");
        const client = new HostedClient(mirror.port, repository);
        const answer = await client.get(`manifests/${tag}`);
        const found = (answer.headers.get("docker-content-digest") ??
          undefined) as Digest | undefined;
        assert.ok(
          answer.status === (found === undefined ? 404 : 200),
          `seed ${seed}, round ${round}, ${name}: ${answer.status}`,
        );
        assert.ok(
          [digest, ...unanswered].includes(found),
          `seed ${seed}, round ${round}, ${name}: got ${found}; expected ${digest} or ${unanswered.join()}`,
        );
        states.set(name, { digest: found, unanswered: [] });
        if (found === undefined) continue;
        const manifest = JSON.parse(answer.body.toString()) as {
          readonly layers: readonly { readonly digest: Digest }[];
        };
        for (const layer of manifest.layers) {
          const blob = await client.head(`blobs/${layer.digest}`);
          assert.equal(blob.status, 200, `${name}: ${layer.digest}`);
        }
      }
    }
    await mirror.terminate();
    test.diagnostic(
      `${ROUNDS} kills after ${writes} answers, ${states.size} tags, 0 lost, seed ${seed}`,
    );
  });
});

async function pushUntilKilled(
  mirror: ChildMirror,
  repository: string,
  {
    round,
    states,
    onAnswer,
  }: {
    readonly round: number;
    readonly states: Map<string, TagState>;
    readonly onAnswer: () => void;
  },
): Promise<void> {
  const client = new HostedClient(mirror.port, repository);
  const change = async (
    tag: string,
    digest: Digest | undefined,
    send: () => Promise<{ readonly status: number }>,
  ): Promise<void> => {
    const name = `${repository}:${tag}`;
    const state = states.get(name) ?? { digest: undefined, unanswered: [] };
    states.set(name, state);
    state.unanswered.push(digest);
    const { status } = await send();
    assert.equal(status, digest === undefined ? 202 : 201, name);
    states.set(name, { digest, unanswered: [] });
    onAnswer();
  };
  try {
    for (let at = 0; ; at += 1) {
      const image = buildImage({
        seed: `${repository}/${round}/${at}`,
        layers: [...base.layers, 1_000 + at],
      });
      for (const blob of image.blobs) {
        const { status } = await client.putBlob(blob);
        assert.equal(status, 201);
      }
      const { manifest } = image;
      for (const tag of [`v${round}-${at}`, "latest"]) {
        await change(tag, manifest.digest, () =>
          client.putManifest(manifest, tag),
        );
      }
      if (at % 3 !== 1) continue;
      const tag = `v${round}-${at}`;
      await change(tag, undefined, () => client.delete(`manifests/${tag}`));
    }
  } catch (error) {
    // The connection ends with the server.
    if (error instanceof assert.AssertionError) throw error;
  }
}
