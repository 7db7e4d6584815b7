import { type ClientRequest, type IncomingMessage, request } from "node:http";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Config } from "../config/config.ts";
import {
  hostToAsk,
  MAX_ANSWER_BYTES,
  type OperatorAnswer,
  parseJson,
} from "./running-mirror.ts";

/** How long the mirror may neither send nor receive a byte: it may wait for its disk. */
const IDLE_TIMEOUT_MS = 10 * 60_000;

/** A response with status 200 whose body is read while it arrives. */
export interface MirrorDownload {
  readonly headers: IncomingMessage["headers"];
  /** Fails if the mirror ends it early. The caller consumes or destroys it. */
  readonly body: Readable;
}

/** Requests to a running mirror whose body is too large for memory. */
export interface MirrorStreams {
  /** @returns the answer instead of a download if its status is not 200 */
  download(
    method: "GET" | "POST",
    path: string,
    body: unknown,
    signal: AbortSignal,
  ): Promise<MirrorDownload | OperatorAnswer>;
  /**
   * Sends a body. The mirror may answer before it has read all of it; the rest is not sent then.
   *
   * @param sizeBytes of the body; absent: unknown
   * @throws the error of the body, or of the connection
   */
  upload(
    path: string,
    body: Readable,
    mediaType: string,
    signal: AbortSignal,
    sizeBytes?: number,
  ): Promise<OperatorAnswer>;
}

/**
 * Returns the streams of the mirror that `findRunningMirror` found with this configuration.
 *
 * @param idleTimeoutMs how long no byte may pass
 */
export function mirrorStreams(
  { operator: { listen, token } }: Pick<Config, "operator">,
  idleTimeoutMs = IDLE_TIMEOUT_MS,
): MirrorStreams {
  const open = (
    method: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): ClientRequest => {
    if (listen === undefined) throw new Error("the operator API is disabled");
    const outgoing = request({
      host: hostToAsk(listen),
      port: listen.port,
      method,
      path,
      agent: false,
      headers: {
        ...headers,
        ...(token === undefined
          ? {}
          : { authorization: `Bearer ${token.reveal()}` }),
      },
      signal,
    });
    outgoing.setTimeout(idleTimeoutMs, () => {
      outgoing.destroy(
        new Error(
          `the running mirror sent nothing for ${idleTimeoutMs / 1_000} s`,
        ),
      );
    });
    return outgoing;
  };
  return {
    async download(method, path, body, signal) {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const outgoing = open(
        method,
        path,
        text === undefined ? {} : { "content-type": "application/json" },
        signal,
      );
      outgoing.end(text);
      const response = await responseOf(outgoing);
      return response.statusCode === 200
        ? { headers: response.headers, body: response }
        : readAnswer(response);
    },
    async upload(path, body, mediaType, signal, sizeBytes) {
      const length = sizeBytes === undefined ? undefined : String(sizeBytes);
      const outgoing = open(
        "POST",
        path,
        {
          "content-type": mediaType,
          ...(length === undefined ? {} : { "content-length": length }),
        },
        signal,
      );
      const answered = responseOf(outgoing);
      // The answer counts, if there is one: a refusal ends the connection while the body is sent.
      const sent = Promise.allSettled([pipeline(body, outgoing)]);
      try {
        return await readAnswer(await answered);
      } catch (error) {
        throw body.errored ?? error;
      } finally {
        body.destroy();
        outgoing.destroy();
        await sent;
      }
    },
  };
}

function responseOf(outgoing: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.once("response", resolve);
    outgoing.on("error", reject);
  });
}

async function readAnswer(response: IncomingMessage): Promise<OperatorAnswer> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    sizeBytes += part.length;
    if (sizeBytes > MAX_ANSWER_BYTES) {
      throw new Error("the running mirror sent an answer that is too large");
    }
    parts.push(part);
  }
  return {
    status: response.statusCode ?? 0,
    body: parseJson(Buffer.concat(parts).toString()),
  };
}
