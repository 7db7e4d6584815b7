import { isIP } from "node:net";
import type { FastifyReply, FastifyRequest } from "fastify";
import { registryErrorBody } from "../oci/errors.ts";

/**
 * An `onRequest` hook for `/api/v1`: a browser on this machine is a peer on this machine, whatever
 * page it shows. Refused are pages of another origin, and names that somebody else's DNS leads
 * here (an address and `localhost` are no names of that kind).
 */
export async function refuseForeignPages(
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const { host = "", origin } = request.headers;
  const name = URL.parse(`http://${host}`)?.hostname ?? "";
  const isAddress = isIP(name.replace(/^\[|\]$/g, "")) !== 0;
  const isOurs =
    origin === undefined || URL.parse(origin)?.host === host.toLowerCase();
  if ((isAddress || name === "localhost") && isOurs) return;
  await reply
    .code(403)
    .type("application/json")
    .send(registryErrorBody("DENIED", undefined, "a page of another origin"));
}
