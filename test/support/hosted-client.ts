import assert from "node:assert/strict";
import type { Digest } from "../../src/oci/digest.ts";
import type { TestBlob, TestImage, TestManifest } from "./image-builder.ts";

export interface ClientAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  /** The first error's code, if the body is an error. */
  readonly code: string | undefined;
  readonly message: string | undefined;
  readonly detail: string | undefined;
}

export interface ClientRequest {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

/** A client of one repository. */
export class HostedClient {
  readonly #base: string;
  readonly #headers: Readonly<Record<string, string>>;

  /**
   * @param repository as a client spells it: `local/team/app`
   * @param headers of every request, such as credentials
   */
  constructor(
    port: number,
    repository: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    this.#headers = headers;
    this.#base = `http://127.0.0.1:${port}/v2/${repository}`;
  }

  /** @param path below the repository: `manifests/latest` */
  async ask(
    method: string,
    path: string,
    { headers, body }: ClientRequest = {},
  ): Promise<ClientAnswer> {
    const response = await fetch(`${this.#base}/${path}`, {
      method,
      headers: { ...this.#headers, ...headers },
      ...(body === undefined ? {} : { body }),
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    return {
      status: response.status,
      headers: response.headers,
      body: bytes,
      ...errorOf(response, bytes),
    };
  }

  get(path: string, headers: Readonly<Record<string, string>> = {}) {
    return this.ask("GET", path, { headers });
  }

  head(path: string, headers: Readonly<Record<string, string>> = {}) {
    return this.ask("HEAD", path, { headers });
  }

  delete(path: string) {
    return this.ask("DELETE", path);
  }

  putBlob(blob: Pick<TestBlob, "digest" | "bytes">): Promise<ClientAnswer> {
    return this.ask("POST", `blobs/uploads/?digest=${blob.digest}`, {
      headers: { "content-type": "application/octet-stream" },
      body: blob.bytes(),
    });
  }

  putManifest(
    { bytes, mediaType, digest }: TestManifest,
    reference: string = digest,
  ): Promise<ClientAnswer> {
    return this.ask("PUT", `manifests/${reference}`, {
      headers: { "content-type": mediaType },
      body: bytes,
    });
  }

  /** Pushes an image with its blobs. @param reference a tag; absent: the digest */
  async push(image: TestImage, reference?: string): Promise<void> {
    for (const blob of image.blobs) {
      const pushed = await this.putBlob(blob);
      assert.equal(pushed.status, 201, pushed.body.toString());
    }
    const pushed = await this.putManifest(image.manifest, reference);
    assert.equal(pushed.status, 201, pushed.body.toString());
  }

  /** Returns what a tag points to; undefined if there is no such tag. */
  async resolve(tag: string): Promise<Digest | undefined> {
    const { status, headers } = await this.head(`manifests/${tag}`);
    return status === 200
      ? (headers.get("docker-content-digest") as Digest)
      : undefined;
  }

  async tags(): Promise<readonly string[]> {
    const { body } = await this.get("tags/list");
    return (JSON.parse(body.toString()) as { tags: string[] }).tags;
  }
}

function errorOf(
  { headers, status }: Response,
  body: Buffer,
): Pick<ClientAnswer, "code" | "message" | "detail"> {
  const isError =
    status >= 400 && headers.get("content-type") === "application/json";
  const [error] =
    isError && body.length > 0
      ? (
          JSON.parse(body.toString()) as {
            errors: { code: string; message: string; detail?: string }[];
          }
        ).errors
      : [];
  return {
    code: error?.code,
    message: error?.message,
    detail: error?.detail,
  };
}
