import { request } from "node:http";
import type { Config, ListenAddress, Secret } from "../config/config.ts";

/** How long the mirror may take to answer. */
const TIMEOUTS = {
  statusMs: 5_000,
  /** An order to evict waits for the disk, a refresh for an upstream. */
  orderMs: 10 * 60_000,
  /** Hashes all that is stored. */
  scrubMs: 7 * 24 * 60 * 60_000,
};
export const SCRUB_PATH = "/api/v1/scrub";
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

export interface OperatorAnswer {
  readonly status: number;
  /** The parsed JSON; undefined where it is none. */
  readonly body: unknown;
}

/** Asks the operator API of the mirror that has the configuration's storage root open. */
export type AskMirror = (
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  body?: unknown,
) => Promise<OperatorAnswer>;

/**
 * Finds the mirror that runs with this configuration.
 *
 * @returns undefined where nobody answers, or another mirror does: then the root may be opened
 */
export async function findRunningMirror(
  config: Pick<Config, "operator" | "storage">,
  timeouts: typeof TIMEOUTS = TIMEOUTS,
): Promise<AskMirror | undefined> {
  const { listen, token } = config.operator;
  if (listen === undefined || listen.port === 0) return undefined;
  const ask: AskMirror = (method, path, body) =>
    askOperator(listen, {
      method,
      path,
      body,
      token,
      timeoutMs: path === SCRUB_PATH ? timeouts.scrubMs : timeouts.orderMs,
    });
  try {
    const { status, body } = await askOperator(listen, {
      method: "GET",
      path: "/api/v1/status",
      body: undefined,
      token,
      timeoutMs: timeouts.statusMs,
    });
    return status === 200 && rootOf(body) === config.storage.root
      ? ask
      : undefined;
  } catch {
    return undefined;
  }
}

function rootOf(status: unknown): unknown {
  if (typeof status !== "object" || status === null) return undefined;
  const storage: unknown = Reflect.get(status, "storage");
  return typeof storage === "object" && storage !== null
    ? Reflect.get(storage, "root")
    : undefined;
}

/** An address to listen on stands for every one of the machine; asked is the loopback. */
function hostToAsk({ host }: ListenAddress): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}

/** One request. @throws Error that says so where the mirror took too long */
function askOperator(
  listen: ListenAddress,
  options: {
    readonly method: string;
    readonly path: string;
    readonly body: unknown;
    readonly token: Secret | undefined;
    readonly timeoutMs: number;
  },
): Promise<OperatorAnswer> {
  const { method, path, body, token, timeoutMs } = options;
  const text = body === undefined ? undefined : JSON.stringify(body);
  const signal = AbortSignal.timeout(timeoutMs);
  const failure = (error: Error): Error =>
    signal.aborted
      ? new Error(`the running mirror did not answer in ${timeoutMs / 1000} s`)
      : error;
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: hostToAsk(listen),
        port: listen.port,
        method,
        path,
        agent: false,
        headers: {
          ...(text === undefined ? {} : { "content-type": "application/json" }),
          ...(token === undefined
            ? {}
            : { authorization: `Bearer ${token.reveal()}` }),
        },
        signal,
      },
      (response) => {
        const parts: Buffer[] = [];
        let sizeBytes = 0;
        response.on("data", (part: Buffer) => {
          sizeBytes += part.length;
          if (sizeBytes > MAX_ANSWER_BYTES) response.destroy();
          else parts.push(part);
        });
        response.on("error", (error) => reject(failure(error)));
        response.on("close", () => {
          if (response.complete) return;
          reject(failure(new Error("the answer broke off")));
        });
        response.on("end", () => {
          resolve({
            status: response.statusCode ?? 0,
            body: parseJson(Buffer.concat(parts).toString()),
          });
        });
      },
    );
    outgoing.on("error", (error) => reject(failure(error)));
    outgoing.end(text);
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
