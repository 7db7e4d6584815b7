import { Readable } from "node:stream";
import {
  diskLayout,
  layoutFolders,
} from "../../src/storage/local/root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../src/storage/local/blobs/fs-blob-store.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { BlobFill } from "../../src/mirror/fills/blob-fill.ts";
import type { FillStorage } from "../../src/mirror/fills/fill-bytes.ts";
import type { FillOptions } from "../../src/mirror/fills/fill-options.ts";
import { type Body, BrokenBody } from "../../src/bodies/body.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import type {
  OpenBlobOptions,
  UpstreamBlob,
} from "../../src/upstream/client.ts";
import { UpstreamError } from "../../src/wire/errors.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { seededBytes } from "./seeded-bytes.ts";
import { tempDir } from "./temp-dir.ts";

/** Creates a blob store in a temporary folder that is removed after the test. */
export async function makeStore(
  test: AfterTest,
  fileSystem: FileSystem = nodeFileSystem,
): Promise<{ store: BlobStore; root: string }> {
  const root = await tempDir(test);
  const layout = diskLayout(root);
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const store = createFsBlobStore({ layout, fileSystem });
  releaseAfter(test, () => store.close());
  return { store, root };
}

export function blobOf(
  seed: string,
  sizeBytes: number,
): { bytes: Buffer; digest: Digest } {
  const bytes = seededBytes(seed, sizeBytes).read(0, sizeBytes);
  return { bytes, digest: digestOf(bytes) };
}

/** An upstream whose answers and bodies the test supplies by hand. */
export class HandFedUpstream {
  readonly opened: { offset: number; avoid: readonly string[] }[] = [];
  readonly #answers: ((offset: number) => UpstreamBlob)[] = [];
  /** Dials that wait for an answer. */
  readonly #dials: ((answer: (offset: number) => UpstreamBlob) => void)[] = [];
  readonly #waiting: ((body: FedBody) => void)[] = [];
  readonly #bodies: FedBody[] = [];

  /** Sets the answer to the next dial: a body from `offset`, or a failure. */
  answer(
    make: (offset: number) => Partial<UpstreamBlob> | UpstreamError,
  ): void {
    const answer = (offset: number): UpstreamBlob => {
      const made = make(offset);
      if (made instanceof UpstreamError) throw made;
      const body = new FedBody();
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#bodies.push(body);
      else waiting(body);
      return {
        status: offset === 0 ? 200 : 206,
        offset,
        sizeBytes: undefined,
        endpoint: "http://one.test",
        ...made,
        body: made.body ?? body,
      };
    };
    const dial = this.#dials.shift();
    if (dial === undefined) this.#answers.push(answer);
    else dial(answer);
  }

  /** Returns the body of the next answered dial; waits for it if there is none yet. */
  async body(): Promise<FedBody> {
    const body = this.#bodies.shift();
    if (body !== undefined) return body;
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  open = async (options: OpenBlobOptions): Promise<UpstreamBlob> => {
    const offset = options.offset ?? 0;
    this.opened.push({ offset, avoid: [...(options.avoid ?? [])] });
    const { promise, resolve, reject } =
      Promise.withResolvers<(offset: number) => UpstreamBlob>();
    const next = this.#answers.shift();
    if (next === undefined) this.#dials.push(resolve);
    else resolve(next);
    options.signal.addEventListener("abort", () => reject(failure("timeout")), {
      once: true,
    });
    const blob = (await promise)(offset);
    options.signal.addEventListener(
      "abort",
      () => blob.body.destroy(failure("interrupted")),
      { once: true },
    );
    return blob;
  };
}

class FedBody extends Readable {
  override _read(): void {}

  feed(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += 65_536) {
      this.push(bytes.subarray(at, at + 65_536));
    }
  }

  finish(): void {
    this.push(null);
  }

  break(): void {
    this.destroy(failure("interrupted"));
  }
}

export function failure(
  kind: ConstructorParameters<typeof UpstreamError>[0],
): UpstreamError {
  return new UpstreamError(kind, kind, { upstream: "test" });
}

export interface StartedFill {
  readonly fill: BlobFill;
  readonly upstream: HandFedUpstream;
  readonly faults: unknown[];
  /** Size in bytes of each blob that was published and entered into the index. */
  readonly rows: number[];
}

export async function startFill(
  store: BlobStore,
  digest: Digest,
  options: Partial<FillOptions> = {},
  upstream = new HandFedUpstream(),
): Promise<StartedFill> {
  const faults: unknown[] = [];
  const rows: number[] = [];
  const storage: FillStorage = options.storage ?? {
    kind: "writer",
    writer: await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: options.expectedBytes,
    }),
  };
  const fill = new BlobFill({
    digest,
    expectedBytes: undefined,
    avoid: new Set(),
    headersTimeoutMs: 5_000,
    windowBytes: () => 1024 * 1024,
    open: upstream.open,
    createHash: () => store.createHash("sha256", undefined),
    onVerified: async (sizeBytes, publish) => {
      await publish();
      rows.push(sizeBytes);
    },
    onResume: () => {},
    onDegraded: (error) => faults.push(error),
    ...options,
    storage,
  });
  return { fill, upstream, faults, rows };
}

/** Reads a body to its end, or until it breaks off. */
export async function readAll(
  body: Body,
): Promise<{ bytes: Buffer; isBroken: boolean }> {
  const parts: Buffer[] = [];
  try {
    for (;;) {
      const read = await body.read();
      if (read === undefined) break;
      for (const part of read) parts.push(Buffer.from(part));
    }
    return { bytes: Buffer.concat(parts), isBroken: false };
  } catch (error) {
    if (!(error instanceof BrokenBody)) throw error;
    return { bytes: Buffer.concat(parts), isBroken: true };
  } finally {
    body.close();
  }
}

/** Reads at least `bytes` bytes, if the body has that many, and leaves it open. */
export async function readUpTo(body: Body, bytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let read = 0; read < bytes;) {
    const next = await body.read();
    if (next === undefined) break;
    for (const part of next) {
      parts.push(Buffer.from(part));
      read += part.length;
    }
  }
  return Buffer.concat(parts);
}
