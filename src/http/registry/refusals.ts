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

/** 416: the only error with the size of the blob. */
export class UnsatisfiedRange extends Error {
  readonly head: Head;

  /** @param head the headers that describe the blob */
  constructor(sizeBytes: number, head: Head) {
    super("range not satisfiable");
    this.head = [...head, "Content-Range", formatUnsatisfiedRange(sizeBytes)];
  }
}

/** 405: the only error with the methods that are allowed. */
export class MethodRefusal extends Error {
  readonly error: RegistryError;
  /** The value of `Allow`; empty: no method is allowed. */
  readonly allow: string;

  /** @param message what the client may do instead; absent: the text of the code */
  constructor(allow: string, message?: string) {
    const error = new RegistryError(
      "UNSUPPORTED",
      message === undefined ? {} : { message },
    );
    super(error.message);
    this.error = error;
    this.allow = allow;
  }
}

/** Maps an error to status, headers and body; the only place that does. */
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
  } else if (thrown instanceof MethodRefusal) {
    error = thrown.error;
    head = ["Allow", thrown.allow];
  }
  if (!(error instanceof RegistryError)) {
    log.error({ err: error }, "request failed by an internal error");
    error = new RegistryError("UNKNOWN", { cause: error });
  }
  const registryError = error as RegistryError;
  exchange.error = registryError.cause;
  // An unread body must not be parsed as the next request.
  const isUnread = hasUnreadBody(request);
  if (isUnread) head.push("Connection", "close");
  // With rules, Cache-Status would distinguish missing content from forbidden content.
  const isAbsence = hasRules && registryError.status === 404;
  const cache = isAbsence ? undefined : exchange.cache;
  const unread = isUnread ? request : undefined;
  sendError(response, exchange, registryError, cache, head, isHead, unread);
}
