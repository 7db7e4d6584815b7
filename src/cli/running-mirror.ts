import { request } from "node:http";
import { formatListenAddress } from "../config/schema/forms.ts";
import type { Config, ListenAddress, Secret } from "../config/config.ts";

/** Time-outs of requests to the mirror. */
const TIMEOUTS = {
  /** Also of the requests that follow a job: they read the memory of the mirror. */
  statusMs: 5_000,
  /** An eviction waits for the disk, a refresh for an upstream. */
  orderMs: 10 * 60_000,
  /** A scrub hashes every stored blob, retention examines every hosted tag. */
  scrubMs: 7 * 24 * 60 * 60_000,
};
export const SCRUB_PATH = "/api/v1/scrub";
export const GC_PATH = "/api/v1/gc";
/** Its dry run asks for every image. */
export const WARM_PATH = "/api/v1/warm";
/** Requests whose duration grows with the content. */
const LONG_PATHS: ReadonlySet<string> = new Set([
  SCRUB_PATH,
  GC_PATH,
  WARM_PATH,
]);
const STATUS_PATH = "/api/v1/status";
export const JOBS_PATH = "/api/v1/jobs";
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

export interface OperatorAnswer {
  readonly status: number;
  /** The parsed JSON; undefined if it is invalid. */
  readonly body: unknown;
}

/** Sends a request to the operator API of the mirror that has the storage root open. */
export type AskMirror = (
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  body?: unknown,
) => Promise<OperatorAnswer>;

/**
 * Finds the mirror that runs with this configuration.
 *
 * @returns undefined if no mirror answers or one with another root does: the root may then be opened
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
      timeoutMs: timeoutOf(method, path, timeouts),
    });
  try {
    const { status, body } = await askOperator(listen, {
      method: "GET",
      path: STATUS_PATH,
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

function timeoutOf(
  method: string,
  path: string,
  { statusMs, orderMs, scrubMs }: typeof TIMEOUTS,
): number {
  if (LONG_PATHS.has(path)) return scrubMs;
  const isQuick = path === STATUS_PATH || path.startsWith(JOBS_PATH);
  return method === "GET" && isQuick ? statusMs : orderMs;
}

/** Describes why {@link findRunningMirror} found no mirror. */
export function unreachableText({ listen }: Config["operator"]): string {
  return listen === undefined
    ? "the operator API is disabled (operator.listen)"
    : `no mirror with this storage root answers at ${formatListenAddress(listen)}, or it requires another operator token`;
}

function rootOf(status: unknown): unknown {
  if (typeof status !== "object" || status === null) return undefined;
  const storage: unknown = Reflect.get(status, "storage");
  return typeof storage === "object" && storage !== null
    ? Reflect.get(storage, "root")
    : undefined;
}

/** Returns the loopback address for a wildcard address. */
export function hostToAsk({ host }: ListenAddress): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}

/** Sends one request. @throws Error that names the time-out if the mirror took too long */
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
          reject(
            failure(
              new Error("the running mirror closed the connection early"),
            ),
          );
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

/** Returns the reason in the problem details (RFC 9457) of a failed request. */
export function problemText(body: unknown): string {
  const { detail, title } = (body ?? {}) as {
    readonly detail?: string;
    readonly title?: string;
  };
  return detail ?? title ?? "no reason given";
}

/** @returns undefined if the text is not JSON */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
