import assert from "node:assert/strict";
import { Agent, request as httpRequest } from "node:http";
import type { Digest } from "../../src/oci/digest.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";

export interface PushAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
  /** The first error code of the body, if any. */
  readonly code: string | undefined;
}

export interface PushRequest {
  readonly headers?: Readonly<Record<string, string | number>>;
  readonly body?: Uint8Array;
  /** Sends the body in chunks of this size, without announcing its length. */
  readonly chunkBytes?: number;
}

/** A client that pushes blobs over one kept connection, step by step. */
export class PushClient {
  readonly #port: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  /** Connections that were opened. */
  connections = 0;

  constructor(test: AfterTest, port: number) {
    this.#port = port;
    releaseAfter(test, () => this.#agent.destroy());
  }

  send(
    method: string,
    path: string,
    { headers = {}, body, chunkBytes }: PushRequest = {},
  ): Promise<PushAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<PushAnswer>();
    const length =
      chunkBytes === undefined ? { "Content-Length": body?.length ?? 0 } : {};
    const sending = httpRequest(
      {
        host: "127.0.0.1",
        port: this.#port,
        method,
        path,
        agent: this.#agent,
        headers: { ...length, ...headers },
      },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (part: string) => {
          text += part;
        });
        response.on("end", () => {
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers as Record<string, string | undefined>,
            text,
            code: codeOf(text),
          });
        });
        response.on("error", reject);
      },
    );
    sending.on("socket", (socket) => {
      if (socket.connecting) this.connections += 1;
    });
    sending.on("error", reject);
    if (body !== undefined && chunkBytes !== undefined) {
      for (let at = 0; at < body.length; at += chunkBytes) {
        sending.write(body.subarray(at, at + chunkBytes));
      }
    }
    sending.end(chunkBytes === undefined ? body : undefined);
    return promise;
  }

  /** Starts an upload. @returns its location */
  async begin(repository: string, query = ""): Promise<string> {
    const answer = await this.send(
      "POST",
      `/v2/${repository}/blobs/uploads/${query}`,
    );
    assert.equal(answer.status, 202, answer.text);
    return locationOf(answer);
  }

  /** Completes an upload. */
  finish(
    location: string,
    digest: Digest | string,
    request: PushRequest = {},
  ): Promise<PushAnswer> {
    return this.send("PUT", withDigest(location, digest), request);
  }

  /** Pushes a blob in one PATCH. */
  async push(
    repository: string,
    digest: Digest,
    bytes: Uint8Array,
  ): Promise<PushAnswer> {
    const location = await this.begin(repository);
    const patched = await this.send("PATCH", location, { body: bytes });
    assert.equal(patched.status, 202, patched.text);
    return this.finish(locationOf(patched), digest);
  }
}

export function withDigest(location: string, digest: string): string {
  const separator = location.includes("?") ? "&" : "?";
  return `${location}${separator}digest=${encodeURIComponent(digest)}`;
}

export function locationOf({ headers }: PushAnswer): string {
  const { location } = headers;
  assert(location !== undefined, "the answer has no Location");
  assert.match(location, /^\//);
  return location;
}

function codeOf(text: string): string | undefined {
  if (!text.startsWith("{")) return undefined;
  const parsed = JSON.parse(text) as {
    readonly errors?: readonly { readonly code: string }[];
  };
  return parsed.errors?.[0]?.code;
}
