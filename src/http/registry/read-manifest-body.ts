import type { IncomingMessage, ServerResponse } from "node:http";
import { BrokenUploadBody } from "../../hosted/uploads/upload-body.ts";
import { RegistryError } from "../../oci/errors.ts";
import { RequestBody } from "./request-body.ts";

/** The time in which a manifest must be received: engines send it in one piece. */
const MAX_BODY_MS = 60_000;

/** The memory of all manifests that are being received. */
const MAX_RECEIVED_BYTES = 64 * 1024 * 1024;

const RETRY_AFTER_MS = 5_000;

/** Reads pushed manifests as a whole, within a bound on the memory of all of them. */
export class ManifestBodyReader {
  readonly #maxMs: number;
  #restBytes: number;

  constructor(maxMs = MAX_BODY_MS, maxBytes = MAX_RECEIVED_BYTES) {
    this.#maxMs = maxMs;
    this.#restBytes = maxBytes;
  }

  /**
   * @param maxBytes the limit of this body
   * @throws RegistryError 413 if the body is larger, 408 if it is slow, 429 if too many are received
   */
  async read(
    request: IncomingMessage,
    response: ServerResponse,
    maxBytes: number,
  ): Promise<Buffer> {
    const body = new RequestBody(request, response, () => performance.now());
    const { lengthBytes } = body;
    if (lengthBytes !== undefined && lengthBytes > maxBytes) {
      throw tooLarge(maxBytes);
    }
    let heldBytes = 0;
    // Of what a slow client only announces, nothing is held.
    const hold = (bytes: number): void => {
      if (heldBytes + bytes > maxBytes) throw tooLarge(maxBytes);
      if (bytes > this.#restBytes) throw tooMany();
      this.#restBytes -= bytes;
      heldBytes += bytes;
    };
    const timer = setTimeout(() => body.cut("stalled"), this.#maxMs);
    try {
      return await collect(body, hold);
    } finally {
      clearTimeout(timer);
      this.#restBytes += heldBytes;
    }
  }
}

/**
 * Reads a whole body. The rest of a refused one is discarded after the response.
 *
 * @param hold called with the number of bytes that arrived; throws if they are too many
 */
async function collect(
  body: RequestBody,
  hold: (bytes: number) => void,
): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  try {
    for (;;) {
      const read = await body.read();
      if (read === undefined) return Buffer.concat(parts);
      hold(read.reduce((sum, { length }) => sum + length, 0));
      parts.push(...read);
    }
  } catch (error) {
    if (!(error instanceof BrokenUploadBody)) {
      body.cut("replaced");
      throw error;
    }
    throw new RegistryError("MANIFEST_INVALID", {
      status: error.reason === "stalled" ? 408 : 400,
      message: "the manifest was not received completely",
      cause: error,
    });
  }
}

function tooMany(): RegistryError {
  return new RegistryError("TOOMANYREQUESTS", {
    detail: "too many manifests are being received",
    retryAfterMs: RETRY_AFTER_MS,
  });
}

function tooLarge(maxBytes: number): RegistryError {
  return new RegistryError("SIZE_INVALID", {
    status: 413,
    message: `the manifest is larger than ${maxBytes} bytes`,
    detail: "maxManifestSize of the hosted registry",
  });
}
