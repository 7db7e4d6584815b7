import assert from "node:assert/strict";
import type { Digest } from "../../../src/oci/digest.ts";
import type { AfterTest } from "../after-test.ts";
import {
  buildImage,
  bytesBlob,
  type TestBlob,
  type TestManifest,
} from "../image-builder.ts";
import { PushClient } from "../push-client.ts";
import type { RealRegistry } from "../real-registry.ts";

const BLOCK_BYTES = 512;

/** Pushes small images that engines can unpack, many tags in a moment. */
export class TagPublisher {
  readonly #client: PushClient;
  readonly #host: string;

  constructor(test: AfterTest, registry: RealRegistry) {
    this.#host = registry.host;
    const port = Number(this.#host.slice(this.#host.lastIndexOf(":") + 1));
    this.#client = new PushClient(test, port);
  }

  /**
   * Pushes one image for each tag. All images of a registry share a layer, those of a repository another
   * one, and each has a configuration of its own.
   *
   * @param others tags of the last of these images
   * @returns the digest of each tag's manifest, without the others
   */
  async publish(
    repository: string,
    tags: readonly string[],
    others: readonly string[] = [],
  ): Promise<ReadonlyMap<string, Digest>> {
    const layers = [
      layer("registry.txt", this.#host),
      layer("repository.txt", repository),
    ];
    for (const shared of layers) await this.#push(repository, shared);
    const digests = new Map<string, Digest>();
    for (const tag of tags) {
      const name = `${this.#host}/${repository}:${tag}`;
      const image = buildImage({ seed: name, layers });
      await this.#push(repository, image.config);
      for (const one of tag === tags.at(-1) ? [tag, ...others] : [tag]) {
        await this.#putManifest(repository, one, image.manifest);
      }
      digests.set(tag, image.manifest.digest);
    }
    return digests;
  }

  async #putManifest(
    repository: string,
    tag: string,
    { bytes, mediaType }: TestManifest,
  ): Promise<void> {
    const put = await this.#client.send(
      "PUT",
      `/v2/${repository}/manifests/${tag}`,
      { headers: { "Content-Type": mediaType }, body: bytes },
    );
    assert.equal(put.status, 201, put.text);
  }

  async #push(repository: string, blob: TestBlob): Promise<void> {
    const begun = await this.#client.send(
      "POST",
      `/v2/${repository}/blobs/uploads/`,
    );
    // This registry's locations are absolute.
    const url = new URL(begun.headers["location"] ?? "");
    const put = await this.#client.finish(
      `${url.pathname}${url.search}`,
      blob.digest,
      { body: blob.bytes() },
    );
    assert.equal(put.status, 201, put.text);
  }
}

/** An uncompressed layer with one file, whose digest is that of its content. */
function layer(name: string, text: string): TestBlob {
  const content = Buffer.from(text);
  const header = Buffer.alloc(BLOCK_BYTES);
  header.write(name, 0);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write(`${content.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const padding = (BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES;
  const end = Buffer.alloc(padding + 2 * BLOCK_BYTES);
  return bytesBlob(Buffer.concat([header, content, end]), {
    mediaType: "application/vnd.oci.image.layer.v1.tar",
  });
}
