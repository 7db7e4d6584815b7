import { Readable, type Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import { refuseBundle } from "./bundle-refusal.ts";

type Bytes = AsyncIterable<Uint8Array>;

const GZIP = Uint8Array.of(0x1f, 0x8b);
const ZSTD = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);
/** Frames that a tool puts before the data, as `pzstd` does: 0x184D2A50 to 0x184D2A5F. */
const ZSTD_SKIPPABLE = Uint8Array.of(0x2a, 0x4d, 0x18);
/** Enough to recognise each format. */
const MAGIC_BYTES = 4;
/** 128 MiB; a larger window needs `--long` at the tool that compressed the archive. */
const MAX_ZSTD_WINDOW_LOG = 27;

/**
 * Decompresses gzip or zstd, recognised by the first bytes; passes anything else unchanged.
 *
 * @param onPlain called before the first byte of anything else
 * @throws RegistryError if the compressed data is damaged or ends early; what the source throws
 */
export async function* decompress(
  source: Bytes,
  onPlain: () => Promise<void> = () => Promise.resolve(),
): Bytes {
  const { head, rest } = await readHead(source);
  if (startsWith(head, GZIP)) {
    yield* through(chain(head, rest), "gzip", createGunzip());
  } else if (isZstd(head)) {
    const params = { [constants.ZSTD_d_windowLogMax]: MAX_ZSTD_WINDOW_LOG };
    const zstd = createZstdDecompress({ params });
    yield* through(chain(head, rest), "zstd", zstd);
  } else {
    yield* chain(head, rest, onPlain);
  }
}

function isZstd(head: Uint8Array): boolean {
  return (
    startsWith(head, ZSTD) ||
    (((head[0] ?? 0) & 0xf0) === 0x50 &&
      startsWith(head.subarray(1), ZSTD_SKIPPABLE))
  );
}

async function readHead(
  source: Bytes,
): Promise<{ head: Uint8Array; rest: AsyncIterator<Uint8Array> }> {
  const rest = source[Symbol.asyncIterator]();
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < MAGIC_BYTES) {
    const next = await rest.next();
    if (next.done === true) break;
    head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  return { head, rest };
}

async function* chain(
  head: Uint8Array,
  rest: AsyncIterator<Uint8Array>,
  onStart = () => Promise.resolve(),
): Bytes {
  try {
    await onStart();
    if (head.length > 0) yield head;
    for (;;) {
      const next = await rest.next();
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await rest.return?.();
  }
}

async function* through(
  source: Bytes,
  format: string,
  transform: Transform,
): Bytes {
  let sourceError: unknown;
  const guarded = async function* (): Bytes {
    try {
      yield* source;
    } catch (error) {
      sourceError = error;
      throw error;
    }
  };
  // Its failure destroys the transform, so that the loop below throws it.
  const feeding = pipeline(Readable.from(guarded()), transform).catch(
    () => undefined,
  );
  try {
    yield* transform as Bytes;
  } catch (error) {
    if (sourceError !== undefined) throw sourceError;
    throw refuseBundle(
      `got damaged or truncated ${format} data; expected a whole archive`,
      error,
    );
  } finally {
    transform.destroy();
    await feeding;
  }
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return prefix.every((byte, at) => bytes[at] === byte);
}
