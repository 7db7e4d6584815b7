import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type AfterTest, releaseAfter } from "./after-test.ts";

/** Both ends of a connection on the loopback; the far one reads nothing until it is resumed. */
export async function connectedSockets(
  test: AfterTest,
): Promise<{ near: Socket; far: Socket }> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const far = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [near] = (await once(server, "connection")) as [Socket];
  for (const socket of [near, far]) {
    socket.on("error", () => {});
    socket.pause();
  }
  releaseAfter(test, async () => {
    near.destroy();
    far.destroy();
    const closed = once(server, "close");
    server.close();
    await closed;
  });
  return { near, far };
}
