import type { IncomingMessage, ServerResponse } from "node:http";

/** The most bytes of a refused body that are read and discarded. */
const MAX_DISCARDED_BYTES = 16 * 1024 * 1024;
/** How long a client may take to send the rest of a refused body. */
const MAX_LINGER_MS = 5_000;
/** A client that sends nothing for this time has read the response, or waits for its end. */
const MAX_IDLE_MS = 250;

/**
 * Sends the last bytes of a response whose request has an unread body. Then discards the body, and
 * closes the connection at its end or when a bound is reached. A connection that is closed with unread bytes is
 * reset, and the reset destroys a response that the client has not read yet.
 *
 * @param response its head is written, with `Content-Length` and `Connection: close`
 */
export function endAfterBody(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Buffer,
): void {
  response.write(bytes);
  let restBytes = MAX_DISCARDED_BYTES;
  const end = (): void => {
    clearTimeout(bound);
    clearTimeout(idle);
    request.off("data", discard);
    response.end();
  };
  const discard = (chunk: Buffer): void => {
    restBytes -= chunk.length;
    if (restBytes < 0) end();
    else idle.refresh();
  };
  const bound = setTimeout(end, MAX_LINGER_MS);
  const idle = setTimeout(end, MAX_IDLE_MS);
  if (request.destroyed) {
    end();
    return;
  }
  request.once("end", end).once("error", end).once("close", end);
  request.on("data", discard).resume();
}
