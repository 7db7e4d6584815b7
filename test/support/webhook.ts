import assert from "node:assert/strict";
import { createServer, type IncomingMessage } from "node:http";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { Counter } from "./barrier.ts";

/** A request that a webhook received. */
export interface Received {
  readonly headers: IncomingMessage["headers"];
  readonly path: string | undefined;
  readonly events: readonly {
    readonly id: string;
    readonly action: string;
    readonly target: Readonly<Record<string, unknown>>;
  }[];
}

/** Starts a webhook that answers each request with the next status, then with 200; 0: never. */
export async function startHook(
  test: AfterTest,
  statuses: readonly number[] = [],
) {
  const received: Received[] = [];
  const counter = new Counter();
  const left = [...statuses];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const status = left.shift() ?? 200;
      received.push({
        headers: request.headers,
        path: request.url,
        ...(JSON.parse(Buffer.concat(chunks).toString()) as Pick<
          Received,
          "events"
        >),
      });
      if (status !== 0) {
        response.writeHead(status, { location: "/elsewhere" }).end("x");
      }
      counter.notify();
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  releaseAfter(test, async () => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return {
    received,
    port: address.port,
    until: (requests: number) =>
      counter.until(
        () => received.length >= requests,
        () => `${received.length} of ${requests} requests`,
      ),
  };
}
