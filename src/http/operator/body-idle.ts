import type { FastifyInstance } from "fastify";

/** How long a client may send no byte of a body that is read as a whole. */
const IDLE_TIMEOUT_MS = 60_000;

/**
 * Cuts off clients that stop in the middle of a JSON body. The server's own limit on a request does not
 * apply: an upload to the registry may take hours.
 */
export function limitBodyIdle(
  app: FastifyInstance,
  idleTimeoutMs = IDLE_TIMEOUT_MS,
): void {
  app.addHook("preParsing", ({ raw }, _reply, body, done) => {
    raw.setTimeout(idleTimeoutMs, () => raw.destroy());
    done(null, body);
  });
  // The response may take as long as its work.
  app.addHook("preValidation", ({ raw }, _reply, done) => {
    raw.setTimeout(0);
    done();
  });
}
