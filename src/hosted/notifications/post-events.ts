import type { Dispatcher } from "undici";
import type { NotificationConfig } from "../../config/config.ts";
import { withDeadline } from "../../wire/deadline.ts";
import { VERSION } from "../../telemetry/version.ts";
import { EVENTS_MEDIA_TYPE } from "./event-record.ts";

/** Sends a body to an endpoint, and returns the status of its answer. */
export type PostEvents = (
  endpoint: NotificationConfig,
  body: string,
  closing: AbortSignal,
) => Promise<number>;

export interface Poster {
  readonly post: PostEvents;
  /** Closes the connections. */
  close(): Promise<void>;
}

/** The bound of an attempt: look-up, connection, request and headers of the answer together. */
const ATTEMPT_MS = 5_000;
/** Shorter than the idle time-outs of common servers, which close a kept connection first. */
const KEEP_ALIVE_MS = 2_000;
/** An answer's body has no meaning; a longer one costs its connection. */
const MAX_BODY_BYTES = 65_536;

/**
 * Creates the HTTP client of notifications. It follows no redirects: the secret headers are meant for
 * the configured host only.
 */
export function createPoster(attemptMs: number = ATTEMPT_MS): Poster {
  let agent: Promise<Dispatcher> | undefined;
  const openAgent = async (): Promise<Dispatcher> => {
    const { Agent } = await import("undici");
    return new Agent({
      allowH2: false,
      connectTimeout: attemptMs,
      headersTimeout: attemptMs,
      bodyTimeout: attemptMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
    });
  };
  return {
    post: (endpoint, body, closing) =>
      withDeadline(
        attemptMs,
        async (signal) => {
          agent ??= openAgent();
          const dispatcher = await agent;
          const url = new URL(endpoint.url.reveal());
          const answer = await dispatcher.request({
            origin: url.origin,
            path: url.pathname + url.search,
            method: "POST",
            headers: headersOf(endpoint, url),
            body,
            signal,
          });
          // The status decides; the body is read only to reuse the connection.
          await answer.body
            .dump({ limit: MAX_BODY_BYTES, signal })
            .catch(() => undefined);
          return answer.statusCode;
        },
        closing,
      ),
    async close() {
      await (await agent)?.destroy();
    },
  };
}

function headersOf(
  { headers }: NotificationConfig,
  { username, password }: URL,
): Record<string, string> {
  const sent: Record<string, string> = {
    "user-agent": `entrepot/${VERSION}`,
  };
  if (username !== "" || password !== "") {
    const text = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    sent["authorization"] = `Basic ${Buffer.from(text).toString("base64")}`;
  }
  for (const [name, value] of headers)
    sent[name.toLowerCase()] = value.reveal();
  sent["content-type"] = EVENTS_MEDIA_TYPE;
  return sent;
}
