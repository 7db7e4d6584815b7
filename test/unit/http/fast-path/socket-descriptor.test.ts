import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { socketDescriptor } from "../../../../src/http/fast-path/socket-descriptor.ts";
import { connectedSockets } from "../../../support/connected-sockets.ts";

void describe("the descriptor of a connection", () => {
  void it("is returned only while no bytes are waiting to be written", async (test) => {
    const { near, far } = await connectedSockets(test);
    const descriptor = socketDescriptor(near);
    assert.equal(typeof descriptor, "number");
    // More than the kernel buffers for a client that does not read.
    near.write(Buffer.alloc(64 * 1024 * 1024));
    assert.equal(socketDescriptor(near), undefined);
    far.resume();
    await once(near, "drain");
    assert.equal(socketDescriptor(near), descriptor);
  });

  void it("is undefined after the connection was closed", async (test) => {
    const { near } = await connectedSockets(test);
    near.destroy();
    assert.equal(socketDescriptor(near), undefined);
  });
});
