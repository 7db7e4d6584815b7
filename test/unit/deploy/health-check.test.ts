import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { Child } from "../../support/child-process.ts";

const SCRIPT = join(
  import.meta.dirname,
  "../../../deploy/container/health-check.js",
);

void describe("the image's health check", () => {
  void it("passes when the operator listener answers on the loopback", async (test) => {
    const server = await answering(test, 200);
    const exit = await check(test, {
      ENTREPOT_OPERATOR__LISTEN: `0.0.0.0:${server.port}`,
    });
    assert.deepEqual(exit, { code: 0, signal: null });
    assert.deepEqual(server.targets, ["/healthz"]);
  });

  void it("requests the registry API if the operator listener is off", async (test) => {
    const server = await answering(test, 200);
    const exit = await check(test, {
      ENTREPOT_OPERATOR__LISTEN: "false",
      ENTREPOT_LISTEN: `0.0.0.0:${server.port}`,
    });
    assert.deepEqual(exit, { code: 0, signal: null });
    assert.deepEqual(server.targets, ["/v2/"]);
  });

  void it("fails on a response other than 200", async (test) => {
    const server = await answering(test, 503);
    const exit = await check(test, {
      ENTREPOT_OPERATOR__LISTEN: `127.0.0.1:${server.port}`,
    });
    assert.deepEqual(exit, { code: 1, signal: null });
  });

  void it("fails when no listener answers", async (test) => {
    const server = await answering(test, 200);
    await server.close();
    const exit = await check(test, {
      ENTREPOT_OPERATOR__LISTEN: `127.0.0.1:${server.port}`,
    });
    assert.deepEqual(exit, { code: 1, signal: null });
  });
});

async function answering(test: TestContext, status: number) {
  const targets: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    targets.push(request.url);
    response.writeHead(status, { "content-length": 0 }).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  test.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    server.close();
    await once(server, "close");
  };
  return { port, targets, close };
}

async function check(test: TestContext, env: Record<string, string>) {
  const child = new Child(test, {
    command: process.execPath,
    args: [SCRIPT],
    env: {
      ENTREPOT_LISTEN: undefined,
      ENTREPOT_OPERATOR__LISTEN: undefined,
      ...env,
    },
  });
  return child.exited;
}
