import { createTarDecoder, type ParsedTarEntry } from "modern-tar";
import { RegistryError } from "../../../oci/errors.ts";
import { quote, refuseBundle } from "./bundle-refusal.ts";
import { decompress } from "./decompress.ts";
import { type MemberName, readMemberName } from "./member-name.ts";
import { checkMetadata } from "./tar-metadata.ts";

/** A regular file of an archive. Its body is read to its end before the next member. */
export interface ArchiveMember {
  /** For messages. */
  readonly name: string;
  readonly meaning: Exclude<MemberName, { readonly kind: "refused" }>;
  readonly sizeBytes: number;
  readonly body: AsyncIterable<Uint8Array>;
}

/** More than a bundle of ten thousand images has. */
const MAX_MEMBERS = 200_000;
/** Headers, padding and what the decoder reads ahead, beyond the members read so far. */
const MAX_SLACK_BYTES = 32 * 1024 * 1024;
const BLOCK_BYTES = 1_024;

/** Messages of the tar library. */
const TRUNCATED = /truncated/i;

/**
 * Reads the members of a tar archive, in their order; gzip or zstd around it is removed.
 *
 * @throws RegistryError if the archive is damaged, ends early, or has a member that is neither a
 *   file nor a folder or whose name leaves the archive; what the source throws
 */
export async function* readArchive(
  source: AsyncIterable<Uint8Array>,
  {
    maxMembers = MAX_MEMBERS,
    onPlain,
  }: {
    readonly maxMembers?: number;
    /** Called before the first member if the archive is not compressed; what it throws ends the read. */
    readonly onPlain?: () => Promise<void>;
  } = {},
): AsyncGenerator<ArchiveMember> {
  const meter = new Meter();
  const stopping = new AbortController();
  let last: string | undefined;
  const entries = ReadableStream.from(
    meter.measure(checkMetadata(decompress(source, onPlain))),
  )
    .pipeThrough(createTarDecoder({ strict: true }), {
      signal: stopping.signal,
    })
    .getReader();
  try {
    for (let members = 0; ; members++) {
      const { done, value } = await entries.read();
      if (done) return;
      if (members >= maxMembers) {
        throw refuseBundle(
          `got more than ${maxMembers} members; expected fewer`,
        );
      }
      const name = quote(value.header.name);
      last = name;
      meter.admit(value.header.size);
      const meaning = readHeader(value);
      if (meaning === undefined) {
        await value.body.cancel();
        continue;
      }
      yield {
        name,
        meaning,
        sizeBytes: value.header.size,
        body: meter.rethrow(value.body, name),
      };
    }
  } catch (error) {
    throw meter.explain(error, last);
  } finally {
    stopping.abort();
    await entries.cancel().catch(() => undefined);
  }
}

/**
 * Judges a member by its header.
 *
 * @returns undefined for a folder
 * @throws RegistryError
 */
function readHeader({
  header,
}: ParsedTarEntry): ArchiveMember["meaning"] | undefined {
  const { type = "file", name, pax } = header;
  const meaning = readMemberName(name);
  if (meaning.kind === "refused") {
    throw refuseBundle(`member ${quote(name)}: ${meaning.reason}`);
  }
  if (type === "directory") return undefined;
  const isLink = type === "link" || type === "symlink";
  // Archives of docker have links between their layers.
  if (isLink && meaning.kind === "docker") return meaning;
  if (type !== "file") {
    throw refuseBundle(
      `member ${quote(name)}: got a ${isLink ? "link" : type}; expected files and folders only`,
    );
  }
  const isSparse = Object.keys(pax ?? {}).some((key) =>
    key.startsWith("GNU.sparse."),
  );
  if (isSparse) {
    throw refuseBundle(
      `member ${quote(name)}: got a sparse file; write the archive without --sparse`,
    );
  }
  return meaning;
}

/** Counts the bytes of the archive, and knows which side an error came from. */
class Meter {
  #readBytes = 0;
  #admittedBytes = MAX_SLACK_BYTES;
  #sourceError: { readonly error: unknown } | undefined;

  /** Admits the bytes of one more member. */
  admit(sizeBytes: number): void {
    this.#admittedBytes += sizeBytes + BLOCK_BYTES;
  }

  async *measure(
    source: AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of source) {
        this.#readBytes += chunk.length;
        if (this.#readBytes > this.#admittedBytes) {
          throw refuseBundle(
            `got ${MAX_SLACK_BYTES} bytes or more after the end of the archive; expected its end`,
          );
        }
        yield chunk;
      }
    } catch (error) {
      this.#sourceError = { error };
      throw error;
    }
  }

  async *rethrow(
    body: AsyncIterable<Uint8Array>,
    name: string,
  ): AsyncGenerator<Uint8Array> {
    try {
      yield* body;
    } catch (error) {
      throw this.explain(error, name);
    }
  }

  /** Returns the error to throw for one of the tar library. */
  explain(error: unknown, last: string | undefined): unknown {
    if (this.#sourceError !== undefined) return this.#sourceError.error;
    if (error instanceof RegistryError || !(error instanceof Error)) {
      return error;
    }
    const isTruncated = TRUNCATED.test(error.message);
    if (last === undefined) {
      return refuseBundle(
        `the archive ${isTruncated ? "ends early" : "is damaged"} before its first member, or is not a tar archive`,
        error,
      );
    }
    return refuseBundle(
      `the archive ${isTruncated ? "ends early," : "is damaged"} in or after ${last}`,
      error,
    );
  }
}
