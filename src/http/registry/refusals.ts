import type { IncomingMessage, ServerResponse } from "node:http";
import { Refusal } from "../../mirror/answers.ts";
import { RegistryError } from "../../oci/errors.ts";
import { formatUnsatisfiedRange } from "../../oci/range.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { AccessRefusal } from "../client-auth/access-refusal.ts";
import type { AccessControl } from "../client-auth/access-control.ts";
import type { Exchange } from "./exchange.ts";
import { hasUnreadBody } from "./request-head.ts";
import { type Head, sendError } from "./send.ts";

/** 416: the one error that tells a size. */
export class UnsatisfiedRange extends Error {
  readonly head: Head;

  /** @param head what is told of the blob */
  constructor(sizeBytes: number, head: Head) {
    super("range not satisfiable");
    this.head = [...head, "Content-Range", formatUnsatisfiedRange(sizeBytes)];
  }
}

/** The only place where an error becomes a status and a body. */
export function refuse(
  log: Logger,
  { hasRules }: AccessControl,
  request: IncomingMessage,
  response: ServerResponse,
  exchange: Exchange,
  thrown: unknown,
): void {
  if (response.headersSent) {
    response.destroy();
    exchange.error = thrown;
    return;
  }
  const isHead = request.method === "HEAD";
  let error = thrown;
  let head: Head = [];
  if (thrown instanceof Refusal) {
    exchange.cache = thrown.status;
    error = thrown.error;
  } else if (thrown instanceof AccessRefusal) {
    error = thrown.error;
    head = Object.entries(thrown.headers).flat();
  } else if (thrown instanceof UnsatisfiedRange) {
    error = new RegistryError("RANGE_INVALID");
    head = thrown.head;
  }
  if (!(error instanceof RegistryError)) {
    log.error({ err: error }, "a fault of our own");
    error = new RegistryError("UNKNOWN", { cause: error });
  }
  const registryError = error as RegistryError;
  exchange.error = registryError.cause;
  if (registryError.code === "UNSUPPORTED" && registryError.status === 405) {
    // An upload's path offers nothing: a GET is refused there too (RFC 9110, 10.2.1).
    head.push("Allow", exchange.kind === "other" ? "" : "GET, HEAD");
  }
  // A body that nobody reads must not be taken for the next request.
  if (hasUnreadBody(request)) head.push("Connection", "close");
  // Where rules exist it would tell what is not there from what may not be had.
  const isAbsence = hasRules && registryError.status === 404;
  const cache = isAbsence ? undefined : exchange.cache;
  sendError(response, exchange, registryError, cache, head, isHead);
}
