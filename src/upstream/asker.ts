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

/** What a small answer may take in all, however slowly its bytes drip. */
const MAX_SMALL_MS = 60_000;

export interface AskerOptions extends FailOverOptions {
  readonly clock: Clock;
  /** True: nobody is asked any more. */
  readonly isClosed: () => boolean;
}

/** Asks one endpoint for a small answer. @throws UpstreamError unless it is a 200 and no HTML */
export type AskSmall = (
  request: Pick<
    EndpointRequest,
    "method" | "repository" | "target" | "isTokenDoubted"
  >,
  deadline?: AbortSignal,
) => Promise<HeldAnswer>;

/** Asks the endpoints of an upstream, and judges the status of what they answer. */
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
      throw new UpstreamError("breaker-open", "no upstream is dialled", {
        upstream,
        isLocal: true,
      });
    }
    return askInOrder(this.#options, request, { act, discard });
  }

  /** Like {@link ask}, for answers that are read whole: within a bound of their own, and none in HTML. */
  askSmall<T>(
    asked: Pick<FailOverRequest, "kind" | "resource" | "isHead">,
    signal: AbortSignal,
    act: (ask: AskSmall, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { kind } = asked;
    return this.ask({ ...asked, signal }, (endpoint, permit, own) => {
      const askWithin =
        (bound: AbortSignal): AskSmall =>
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
            status === 200 ? "HTML" : `status ${status}`,
          );
        };
      return withDeadline(
        MAX_SMALL_MS,
        (bound) => act(askWithin(bound), own),
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
    // Before the slot is free: those who wait for it look at the breaker next.
    request.permit.fail(fault, true);
    dismiss(held);
    // Storage that refuses its own signed URL says nothing of who may pull.
    const isStorages =
      request.kind === "blob" && held.answer.url.origin !== endpoint.origin;
    throw isStorages &&
      (fault.kind === "denied" || fault.kind === "unauthorized")
      ? this.badAnswer(held, `status ${held.answer.status}`)
      : fault;
  }

  /** @throws UpstreamError `too-large`, or for a body that breaks or hardly moves on */
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
