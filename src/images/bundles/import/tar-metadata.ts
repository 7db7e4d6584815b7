import { refuseBundle } from "./bundle-refusal.ts";

type Bytes = AsyncIterable<Uint8Array>;

const BLOCK_BYTES = 512;
const SIZE_AT = 124;
const SIZE_END = 136;
const TYPE_AT = 156;
const PAX = "x".charCodeAt(0);
const GLOBAL_PAX = "g".charCodeAt(0);
const GNU_LONG_NAME = "L".charCodeAt(0);
const GNU_LONG_LINK = "K".charCodeAt(0);
const METADATA = new Set([PAX, GLOBAL_PAX, GNU_LONG_NAME, GNU_LONG_LINK]);
/** Types "1" to "6": links, devices, folders and pipes, whose size does not count. */
const FIRST_BODYLESS = "1".charCodeAt(0);
const LAST_BODYLESS = "6".charCodeAt(0);
/** More than names and extended attributes need. */
const MAX_METADATA_BYTES = 1024 * 1024;
const MAX_LENGTH_DIGITS = 7;
const SPACE = 0x20;
const NEWLINE = 0x0a;
const decoder = new TextDecoder();

/**
 * Passes a tar archive unchanged, and refuses it at a PAX header that is large or malformed: the tar
 * library takes time that grows with the square of such a header, and would block the process for hours.
 *
 * @throws RegistryError; what the source throws
 */
export async function* checkMetadata(source: Bytes): Bytes {
  const scan = new MetadataScan();
  for await (const chunk of source) {
    scan.add(chunk);
    yield chunk;
  }
}

/** Follows the headers of an archive as the tar library does; what that refuses by itself ends the scan. */
class MetadataScan {
  #isOver = false;
  #skippedBytes = 0;
  /** The block, or the body of metadata, that is being collected. */
  #held = Buffer.alloc(BLOCK_BYTES);
  #heldBytes = 0;
  /** The kind of metadata whose body is being collected. */
  #metadata: number | undefined;
  #hasPax = false;
  /** Sizes of PAX headers, which replace that of a member. */
  #nextSize: number | undefined;
  #globalSize: number | undefined;

  add(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length && !this.#isOver;) {
      if (this.#skippedBytes > 0) {
        const skipped = Math.min(this.#skippedBytes, chunk.length - at);
        this.#skippedBytes -= skipped;
        at += skipped;
        continue;
      }
      const lacking = this.#held.length - this.#heldBytes;
      const part = chunk.subarray(at, at + lacking);
      this.#held.set(part, this.#heldBytes);
      this.#heldBytes += part.length;
      at += part.length;
      if (this.#heldBytes === this.#held.length) this.#readHeld();
    }
  }

  #readHeld(): void {
    const held = this.#held;
    const metadata = this.#metadata;
    this.#heldBytes = 0;
    this.#metadata = undefined;
    if (metadata === undefined) {
      this.#readHeader(held);
      return;
    }
    const size = readPaxSize(held);
    if (metadata === PAX) this.#nextSize = size;
    else this.#globalSize = size ?? this.#globalSize;
    this.#hasPax = metadata === PAX;
    this.#held = Buffer.alloc(BLOCK_BYTES);
    this.#skippedBytes = paddingOf(held.length);
  }

  #readHeader(block: Buffer): void {
    const size = readSize(block.subarray(SIZE_AT, SIZE_END));
    if (size === undefined || block.every((byte) => byte === 0)) {
      this.#isOver = true;
      return;
    }
    const type = block[TYPE_AT] ?? 0;
    if (!METADATA.has(type)) {
      const isBodyless = type >= FIRST_BODYLESS && type <= LAST_BODYLESS;
      const bodyBytes = this.#nextSize ?? this.#globalSize ?? size;
      this.#skippedBytes = isBodyless ? 0 : bodyBytes + paddingOf(bodyBytes);
      this.#forgetPax();
      return;
    }
    if (size > MAX_METADATA_BYTES) {
      throw refuseBundle(
        `got a header of ${size} bytes before a member; expected at most ${MAX_METADATA_BYTES}`,
      );
    }
    // Any metadata after a PAX header replaces it.
    if (this.#hasPax) this.#forgetPax();
    if (size === 0) return;
    if (type === PAX || type === GLOBAL_PAX) {
      this.#metadata = type;
      this.#held = Buffer.alloc(size);
    } else this.#skippedBytes = size + paddingOf(size);
  }

  #forgetPax(): void {
    this.#hasPax = false;
    this.#nextSize = undefined;
  }
}

function paddingOf(sizeBytes: number): number {
  return -sizeBytes & (BLOCK_BYTES - 1);
}

/** @returns undefined if the field is not a number that the tar library accepts */
function readSize(field: Buffer): number | undefined {
  const [first = 0] = field;
  if ((first & 0x80) !== 0) {
    let size = first & 0x7f;
    for (const byte of field.subarray(1)) size = size * 256 + byte;
    return Number.isSafeInteger(size) ? size : undefined;
  }
  const end = field.indexOf(0);
  const text = field
    .toString("latin1", 0, end === -1 ? field.length : end)
    .replaceAll(" ", "");
  return /^[0-7]*$/.test(text) ? Number.parseInt(`0${text}`, 8) : undefined;
}

/**
 * Returns the size in the records of a PAX header.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13_03
 * @throws RegistryError if a record is malformed
 */
function readPaxSize(body: Buffer): number | undefined {
  let size: number | undefined;
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(SPACE, at);
    const isNear = space > at && space - at <= MAX_LENGTH_DIGITS;
    const digits = isNear ? body.toString("latin1", at, space) : "";
    const end = /^[1-9][0-9]*$/.test(digits) ? at + Number(digits) : 0;
    const isRecord =
      end > space + 1 && end <= body.length && body[end - 1] === NEWLINE;
    const record = isRecord
      ? decoder.decode(body.subarray(space + 1, end - 1))
      : "";
    const value = /^size=(.*)$/s.exec(record)?.[1];
    const isSize = value === undefined || /^[0-9]{1,15}$/.test(value);
    if (record.indexOf("=") < 1 || !isSize) {
      throw refuseBundle(
        "got a malformed PAX header before a member; expected records such as '9 path=x'",
      );
    }
    if (value !== undefined) size = Number(value);
    at = end;
  }
  return size;
}
