import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { MANIFEST_TYPE } from "./registry-files.ts";
import type { Origin } from "./rig.ts";

const BLOCK = randomBytes(1024 ** 2);
const MARK_BYTES = 16;

/** Bytes that are held once, however large they are, and differ from those of every other content. */
export interface Content {
  readonly digest: string;
  readonly sizeBytes: number;
  parts(): Iterable<Buffer>;
}

/** @param sizeBytes a multiple of 1 MiB */
export function newContent(sizeBytes: number): Content {
  const first = Buffer.concat([
    randomBytes(MARK_BYTES),
    BLOCK.subarray(MARK_BYTES),
  ]);
  const count = sizeBytes / BLOCK.length;
  function* parts(): Generator<Buffer> {
    yield first;
    for (let part = 1; part < count; part++) yield BLOCK;
  }
  return { ...describe(parts()), parts };
}

function contentOf(value: unknown): Content {
  const bytes = Buffer.from(JSON.stringify(value));
  const parts = (): Iterable<Buffer> => [bytes];
  return { ...describe(parts()), parts };
}

function describe(parts: Iterable<Buffer>): Omit<Content, "parts"> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for (const part of parts) {
    hash.update(part);
    sizeBytes += part.length;
  }
  return { digest: `sha256:${hash.digest("hex")}`, sizeBytes };
}

export interface PushedImage {
  readonly tag: string;
  readonly layers: readonly Content[];
  readonly config: Content;
  readonly manifest: Content;
}

export function newImage(
  tag: string,
  layerCount: number,
  layerBytes: number,
): PushedImage {
  const layers = Array.from({ length: layerCount }, () =>
    newContent(layerBytes),
  );
  const config = contentOf({ tag, layers: layers.map(({ digest }) => digest) });
  const manifest = contentOf({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: descriptor("application/vnd.oci.image.config.v1+json", config),
    layers: layers.map((layer) =>
      descriptor("application/vnd.oci.image.layer.v1.tar", layer),
    ),
  });
  return { tag, layers, config, manifest };
}

function descriptor(
  mediaType: string,
  { digest, sizeBytes }: Content,
): Record<string, unknown> {
  return { mediaType, digest, size: sizeBytes };
}

/** What dockerd pushes at a time. */
const CONCURRENT_UPLOADS = 5;

/** Pushes as dockerd does: HEAD, POST, one PATCH in chunks, PUT; five blobs at a time, then the manifest. */
export class Pusher {
  readonly #server: Origin;
  readonly #repository: string;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(server: Origin, repository: string) {
    this.#server = server;
    this.#repository = repository;
  }

  async push(image: PushedImage): Promise<void> {
    const waiting = [...image.layers, image.config];
    const uploadNext = async (): Promise<void> => {
      for (
        let next = waiting.shift();
        next !== undefined;
        next = waiting.shift()
      ) {
        await this.#upload(next);
      }
    };
    await Promise.all(Array.from({ length: CONCURRENT_UPLOADS }, uploadNext));
    await this.#send("PUT", this.#path(`manifests/${image.tag}`), 201, {
      content: image.manifest,
      type: MANIFEST_TYPE,
    });
  }

  async delete(image: PushedImage): Promise<void> {
    await this.#send(
      "DELETE",
      this.#path(`manifests/${image.manifest.digest}`),
      202,
    );
  }

  close(): void {
    this.#agent.destroy();
  }

  async #upload(content: Content): Promise<void> {
    await this.#send("HEAD", this.#path(`blobs/${content.digest}`), 404);
    const started = await this.#send("POST", this.#path("blobs/uploads/"), 202);
    const type = "application/octet-stream";
    const sent = await this.#send("PATCH", started, 202, { content, type });
    const separator = sent.includes("?") ? "&" : "?";
    await this.#send("PUT", `${sent}${separator}digest=${content.digest}`, 201);
  }

  #path(rest: string): string {
    return `/v2/${this.#repository}/${rest}`;
  }

  /** @returns the path of the `Location` */
  async #send(
    method: string,
    path: string,
    expected: number,
    body?: { readonly content: Content; readonly type: string },
  ): Promise<string> {
    const sending = request(this.#server.origin + path, {
      method,
      agent: this.#agent,
      headers:
        body === undefined
          ? { "Content-Length": 0 }
          : // Go's client sends a body of unknown length in chunks; the manifest's length is known.
            method === "PATCH"
            ? { "Content-Type": body.type }
            : {
                "Content-Type": body.type,
                "Content-Length": body.content.sizeBytes,
              },
    });
    const answered = once(sending, "response") as Promise<[IncomingMessage]>;
    for (const part of body?.content.parts() ?? []) {
      if (!sending.write(part)) await once(sending, "drain");
    }
    sending.end();
    const [response] = await answered;
    response.resume();
    if (method !== "HEAD") await once(response, "end");
    if (response.statusCode !== expected) {
      throw new Error(
        `${method} ${path}: got ${response.statusCode}; expected ${expected}`,
      );
    }
    const { location } = response.headers;
    if (location === undefined) return "";
    const { pathname, search } = new URL(location, this.#server.origin);
    return pathname + search;
  }
}

/** Some 5 KiB of the request line. */
const TAGS_PER_REQUEST = 400;

/** Gives a pushed image further tags, many by each request. */
export async function putTags(
  server: Origin,
  repository: string,
  { manifest }: PushedImage,
  tags: readonly string[],
): Promise<void> {
  const url = `${server.origin}/v2/${repository}/manifests/${manifest.digest}`;
  const body = Buffer.concat([...manifest.parts()]);
  for (let at = 0; at < tags.length; at += TAGS_PER_REQUEST) {
    const some = tags.slice(at, at + TAGS_PER_REQUEST);
    const query = some.map((tag) => `tag=${tag}`).join("&");
    const response = await fetch(`${url}?${query}`, {
      method: "PUT",
      headers: { "Content-Type": MANIFEST_TYPE },
      body,
    });
    if (response.status !== 201) {
      throw new Error(`got ${response.status}: ${await response.text()}`);
    }
    await response.arrayBuffer();
  }
}
