import { readBody } from "../wire/body.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Endpoint } from "./endpoint.ts";
import type { EndpointRequest } from "./endpoint-request.ts";
import { UpstreamError } from "../wire/errors.ts";
import {
  type Ask,
  askInOrder,
  type FailOverOptions,
  type FailOverRequest,
} from "./fail-over.ts";
import { isHtml } from "./lists.ts";
import { dismiss, type HeldAnswer } from "../wire/retry.ts";
import { statusFault } from "../wire/status-faults.ts";
import { withDeadline } from "../wire/deadline.ts";

/** Bound of the whole time that a small answer may take. */
const MAX_SMALL_MS = 60_000;

export interface AskerOptions extends FailOverOptions {
  readonly clock: Clock;
  /** True: no request is sent any more. */
  readonly isClosed: () => boolean;
}

/** Sends a request for a small answer to one endpoint. @throws UpstreamError unless it is a 200 and not HTML */
export type SendSmall = (
  request: Pick<
    EndpointRequest,
    "method" | "repository" | "target" | "isTokenDoubted"
  >,
  deadline?: AbortSignal,
) => Promise<HeldAnswer>;

/** Sends requests to the endpoints of an upstream and checks the status of their answers. */
export class Asker {
  readonly #options: AskerOptions;

  constructor(options: AskerOptions) {
    this.#options = options;
  }

  /** @throws UpstreamError as {@link askInOrder} does */
  async ask<T>(
    request: FailOverRequest,
    act: Ask<T>["act"],
    discard: Ask<T>["discard"] = () => {},
  ): Promise<T> {
    const { upstream, isClosed } = this.#options;
    if (isClosed()) {
      throw new UpstreamError(
        "breaker-open",
        "the upstream is offline or closed",
        {
          upstream,
          isLocal: true,
        },
      );
    }
    return askInOrder(this.#options, request, { act, discard });
  }

  /** Like {@link ask}, for answers that are read whole: bounded in time, and never HTML. */
  askSmall<T>(
    target: Pick<FailOverRequest, "kind" | "resource" | "isHead">,
    signal: AbortSignal,
    act: (send: SendSmall, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { kind } = target;
    return this.ask({ ...target, signal }, (endpoint, permit, own) => {
      const sendWithin =
        (bound: AbortSignal): SendSmall =>
        async (request, deadline) => {
          const held = await this.send(endpoint, {
            ...request,
            kind,
            permit,
            signal:
              deadline === undefined
                ? bound
                : AbortSignal.any([bound, deadline]),
          });
          const { status } = held.answer;
          if (status === 200 && !isHtml(held.answer)) return held;
          dismiss(held);
          throw this.badAnswer(
            held,
            status === 200 ? "got HTML" : `got status ${status}`,
          );
        };
      return withDeadline(
        MAX_SMALL_MS,
        (bound) => act(sendWithin(bound), own),
        own,
      );
    });
  }

  /** @throws UpstreamError for every status but 200 and 206 */
  async send(
    endpoint: Endpoint,
    request: EndpointRequest,
  ): Promise<HeldAnswer> {
    const held = await endpoint.send(request);
    const { upstream, clock } = this.#options;
    const fault = statusFault(held.answer, upstream, clock);
    if (fault === undefined) return held;
    // Report before the slot is free: requests that wait for it check the breaker next.
    request.permit.fail(fault, true);
    dismiss(held);
    // Storage that refuses its own signed URL says nothing about who may pull.
    const isFromStorage =
      request.kind === "blob" && held.answer.url.origin !== endpoint.origin;
    throw isFromStorage &&
      (fault.kind === "denied" || fault.kind === "unauthorized")
      ? this.badAnswer(held, `got status ${held.answer.status}`)
      : fault;
  }

  /** Reads the body. @throws UpstreamError `too-large`, or for a body that breaks or is too slow */
  async read(held: HeldAnswer, maxBytes: number): Promise<Buffer> {
    const { upstream, observer } = this.#options;
    try {
      return await readBody(held.answer, maxBytes, upstream, (bytes) =>
        observer.onReceivedBytes(bytes),
      );
    } finally {
      held.release();
    }
  }

  badAnswer({ answer }: HeldAnswer, what: string): UpstreamError {
    const { origin } = answer.url;
    return new UpstreamError("bad-response", `${origin}: ${what}`, {
      upstream: this.#options.upstream,
      origin,
      status: answer.status,
    });
  }
}
