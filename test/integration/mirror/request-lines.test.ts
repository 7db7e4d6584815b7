import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const BLOB = seededBlob("lines", 2_000_000);
const IMAGE = buildImage({ seed: "lines", layers: [BLOB] });

void describe("the log lines of requests", () => {
  void it("state the causes of failures by a registry or a client, without a stack", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", IMAGE, "v");
    const mirror = await startMirror(test, [
      { ...upstreamOf(upstream), isDefault: true },
      // Port 1 of the loopback refuses connections.
      {
        ...upstreamOf({ origin: "http://127.0.0.1:1" }),
        name: "away.example",
        isDefault: false,
      },
    ]);
    const blob = `/v2/library/app/blobs/${BLOB.digest}`;
    const statuses: number[] = [];
    const ask = async (path: string): Promise<void> => {
      statuses.push((await mirror.get(path)).status);
    };
    await ask("/v2/library/app/manifests/absent");
    await ask("/v2/library/APP/manifests/v");
    await ask("/v2/away.example/app/manifests/v");
    await ask("/v2/away.example/app/manifests/v");
    await mirror.start(blob, { leave: { atByte: 1, by: "rst" } }).response;
    await ask("/v2/library/app/manifests/v");
    // Each fault once, for different content: failures of the upstream differ from those of its content.
    const faults = [429, 401, 403, 500, 503];
    for (const status of faults) {
      upstream.when(
        { reference: `f${status}` },
        { status, body: "" },
        { beforeAuth: true },
      );
      await ask(`/v2/library/app/manifests/f${status}`);
    }
    await mirror.restart({ offline: true });
    await ask("/v2/library/app/manifests/v");
    await ask("/v2/library/app/manifests/other");
    await mirror.settled();

    assert.ok(
      statuses.filter((status) => status >= 400).length >= 8,
      statuses.join(" "),
    );
    const lines = mirror.log.filter(({ msg }) => msg === "request");
    assert.equal(lines.length, statuses.length + 1);
    assert.doesNotMatch(JSON.stringify(mirror.log), /"stack"|\.ts:\d+:\d+/);
    const away = lines.filter(({ upstream: name }) => name === "away.example");
    assert.match(JSON.stringify(away[0]), /127\.0\.0\.1:1: .*ECONNREFUSED/);
  });
});
