import { BlockList, isIP } from "node:net";
import type { FastifyReply, FastifyRequest } from "fastify";
import { registryErrorBody } from "../oci/errors.ts";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Whether a peer is on this machine; IPv4 addresses of a dual-stack socket (`::ffff:127.0.0.1`) too. */
export function isLoopbackPeer(address: string | undefined): boolean {
  if (address === undefined) return false;
  const family = isIP(address);
  return (
    family !== 0 && LOOPBACK.check(address, family === 4 ? "ipv4" : "ipv6")
  );
}

/** An `onRequest` hook for `/api/v1`: without a token of their own, peers on this machine only. */
export async function allowLoopbackOnly(
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  if (isLoopbackPeer(request.socket.remoteAddress)) return;
  await reply
    .code(403)
    .type("application/json")
    .send(
      registryErrorBody(
        "DENIED",
        undefined,
        "the operator API answers this machine only",
      ),
    );
}
