import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { accessConfig } from "../../support/access.ts";
import { errorCode, startMirror } from "../../support/mirror-harness.ts";

void describe("the root of the registry port", () => {
  void it("is one line of text for GET and HEAD, also if anonymous pulls are refused", async (test) => {
    for (const options of [
      {},
      { access: accessConfig({ anonymous: "none" }) },
    ]) {
      const mirror = await startMirror(test, [], options);
      for (const path of ["/", "/?a=b"]) {
        const got = await mirror.get(path);
        assert.equal(got.status, 200);
        assert.equal(got.headers["content-type"], "text/plain; charset=utf-8");
        assert.match(got.body.toString(), /^Entrepot, [^\n]+\/v2\/[^\n]+\n$/);
        const head = await mirror.head(path);
        assert.equal(head.status, 200);
        assert.equal(head.headers["content-length"], String(got.body.length));
      }
    }
  });

  void it("is the only path outside the API that is not 404", async (test) => {
    const mirror = await startMirror(test, []);
    for (const path of ["/index.html", "/v1/", "/favicon.ico", "/metrics"]) {
      const got = await mirror.get(path);
      assert.deepEqual([got.status, errorCode(got)], [404, "UNSUPPORTED"]);
    }
    const post = await mirror.start("/", { method: "POST" }).response;
    assert.equal(post.status, 404);
  });
});
