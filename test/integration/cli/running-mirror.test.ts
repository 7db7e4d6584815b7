import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { findRunningMirror } from "../../../src/cli/running-mirror.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";

const ROOT = "/srv/entrepot";

/** Answers the status request; never answers later requests, or never completes them. */
async function startHanging(
  test: AfterTest,
  hang: (begin: () => void) => void,
): Promise<number> {
  const server = createServer((request, response) => {
    const status = JSON.stringify({ storage: { root: ROOT } });
    if (request.url === "/api/v1/status") response.end(status);
    else hang(() => response.write('{"images":['));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

void describe("a running mirror that does not answer a request", () => {
  const hangs: Readonly<Record<string, (begin: () => void) => void>> = {
    "at all": () => undefined,
    "to its end": (begin) => begin(),
  };
  for (const [name, hang] of Object.entries(hangs)) {
    void it(`${name} ends at its time-out with an error that names it`, async (test) => {
      const port = await startHanging(test, hang);
      const operator = {
        listen: { host: "127.0.0.1", port },
      };
      const ask = await findRunningMirror(
        { operator, storage: { root: ROOT } },
        { statusMs: 5_000, orderMs: 200, scrubMs: 200 },
      );
      assert.ok(ask);
      await assert.rejects(ask("GET", "/api/v1/images"), {
        message: "the running mirror did not answer in 0.2 s",
      });
    });
  }

  void it("ends sooner if the request follows a job", async (test) => {
    const port = await startHanging(test, () => undefined);
    const ask = await findRunningMirror(
      {
        operator: { listen: { host: "127.0.0.1", port } },
        storage: { root: ROOT },
      },
      { statusMs: 2_000, orderMs: 3_600_000, scrubMs: 3_600_000 },
    );
    assert.ok(ask);
    await assert.rejects(ask("GET", "/api/v1/jobs/0mjuohs00"), {
      message: "the running mirror did not answer in 2 s",
    });
  });
});
