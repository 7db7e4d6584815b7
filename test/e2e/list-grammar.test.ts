import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { parseList } from "../../src/images/lists/parse-list.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { fetchNewerClients } from "../support/engines/newer-clients.ts";
import { selectBySkopeo } from "../support/engines/skopeo-sync.ts";
import { RandomSelectors } from "../support/random-selectors.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";

const SELECTORS = 500;

/** A registry in which every repository has these tags. @returns `127.0.0.1:PORT` */
async function serveTags(
  after: AfterTest,
  tags: readonly string[],
): Promise<string> {
  const server = createServer((request, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(
      request.url === "/v2/" ? "{}" : JSON.stringify({ name: "any", tags }),
    );
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  releaseAfter(after, () => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

void test("a list selects the tags that skopeo selects, by any constraint and pattern", async (after) => {
  const seed = chooseSeed();
  after.diagnostic(`ENTREPOT_SEED=${seed}`);
  const selectors = new RandomSelectors(seededRandom(seed));
  const tags = selectors.tags(60);
  const host = await serveTags(after, tags);
  // A registry each: skopeo ignores all patterns of a registry in which one is invalid.
  const registries = Array.from({ length: SELECTORS }, (_, i) => {
    const selection =
      i % 3 === 0
        ? { "images-by-tag-regex": { r: selectors.pattern() } }
        : { "images-by-semver": { r: selectors.constraint() } };
    return [`${host}/s${i}`, { "tls-verify": false, ...selection }] as const;
  });
  const text = JSON.stringify(Object.fromEntries(registries));

  const theirs = await selectBySkopeo(after, await fetchNewerClients(), text);
  const { entries, faults } = parseList({ name: "list.yaml", text });
  const ours = entries.flatMap((entry) =>
    entry.kind === "tags"
      ? tags.filter(entry.selects).map((tag) => `${entry.repository}:${tag}`)
      : [],
  );

  assert.ok(ours.length > SELECTORS, "too few constraints were valid");
  assert.ok(faults.length > 0, "no invalid constraint was tried");
  const [byUs, byThem] = [new Set(ours), new Set(theirs)];
  const wrong = [...theirs, ...ours].filter(
    (reference) => !byUs.has(reference) || !byThem.has(reference),
  );
  assert.deepEqual(
    wrong.map((reference) => [
      reference,
      registries[Number(/\/s(\d+)\//.exec(reference)?.[1])]?.[1],
    ]),
    [],
  );
});
