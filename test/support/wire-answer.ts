import type { Duplex } from "node:stream";
import { STATUS_CODES } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import type { Barrier } from "./barrier.ts";
import { bufferSource, type ByteSource } from "./seeded-bytes.ts";

/** An answer before a test changes it. */
export interface Answer {
  readonly status: number;
  /** Without framing. A list is sent as several lines. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body: ByteSource;
  /** If `body` is a range: its first byte, and the size of the whole. */
  readonly part?: { readonly offset: number; readonly wholeBytes: number };
}

/**
 * How an answer departs from an honest one. Offsets count bytes of the body as it is sent,
 * from its own start.
 */
export interface Misbehaviour {
  readonly status?: number;
  /** Merged over the registry's; undefined removes a header. */
  readonly headers?: Readonly<
    Record<string, string | readonly string[] | undefined>
  >;
  readonly body?: Buffer | string | ByteSource;
  /** Default `content-length`; `eof` sends no framing and closes the connection. */
  readonly framing?: "content-length" | "chunked" | "eof";
  /** Value of Content-Length, independent of the bytes sent. */
  readonly contentLength?: number;
  /** Inverts one byte of the whole blob or manifest, by its offset or a word for it. */
  readonly flip?: "first" | "middle" | "last" | number;
  /** Sends only so many bytes, as a complete message; with `contentLength`, fewer than announced. */
  readonly shortenTo?: number;
  /** Sends so many bytes after the body, as part of the message. */
  readonly appendBytes?: number;
  /** Sends the body with `Content-Encoding: gzip`, requested or not. */
  readonly gzip?: boolean;
  /** Closes the connection after so many bytes of the body. */
  readonly cut?: { readonly atByte: number; readonly by: "fin" | "rst" };
  /** Stops for ever before the status line, or after so many bytes of the body. */
  readonly stallAt?: "headers" | number;
  /** Waits at the same place until the barrier is released. */
  readonly hold?: {
    readonly at: "headers" | number;
    readonly barrier: Barrier;
  };
  readonly bytesPerSecond?: number;
  /** Written instead of an answer, after which the connection is closed. */
  readonly raw?: Buffer | string;
}

export interface AnswerSink {
  readonly connection: Duplex;
  /** Aborted when the connection closes. */
  readonly gone: AbortSignal;
  /** Closes by RST instead of FIN. */
  reset(): void;
  /** Bytes of a body that the kernel has accepted. */
  onBodyBytes(count: number): void;
}

export interface AnswerContext {
  readonly method: string;
  /** The client asked for the connection to be closed, or speaks HTTP/1.0. */
  readonly closes: boolean;
}

const PART_BYTES = 262_144;
const DRIPS_PER_SECOND = 20;
const NO_BODY = bufferSource(Buffer.alloc(0));

/** Writes an answer; returns whether the connection may carry another. */
export async function writeAnswer(
  sink: AnswerSink,
  honest: Answer,
  fault: Misbehaviour,
  context: AnswerContext,
): Promise<boolean> {
  if (fault.hold?.at === "headers") await fault.hold.barrier.pass(sink.gone);
  if (fault.stallAt === "headers") await goneFrom(sink.gone);
  if (sink.gone.aborted) return false;
  if (fault.raw !== undefined) {
    await write(sink, Buffer.from(fault.raw));
    return false;
  }
  const status = fault.status ?? honest.status;
  const body = chooseBody(honest, fault);
  const framing = fault.framing ?? "content-length";
  const headers: Record<string, string | readonly string[] | undefined> = {
    ...honest.headers,
    ...(fault.gzip === true ? { "content-encoding": "gzip" } : {}),
    ...(framing === "chunked" ? { "transfer-encoding": "chunked" } : {}),
    ...(framing === "content-length" && status !== 304 && status !== 204
      ? { "content-length": String(fault.contentLength ?? body.sizeBytes) }
      : {}),
    ...(context.closes || framing === "eof" ? { connection: "close" } : {}),
    ...fault.headers,
  };
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}`];
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue;
    for (const one of typeof value === "string" ? [value] : value) {
      lines.push(`${name}: ${one}`);
    }
  }
  await write(sink, Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"));
  const keepsAlive = !context.closes && framing !== "eof";
  if (context.method === "HEAD") return keepsAlive;
  const isWhole = await writeBody(sink, body, fault, framing === "chunked");
  const isAsAnnounced =
    framing !== "content-length" ||
    fault.contentLength === undefined ||
    fault.contentLength === body.sizeBytes;
  return keepsAlive && isWhole && isAsAnnounced;
}

function chooseBody(honest: Answer, fault: Misbehaviour): ByteSource {
  const given =
    typeof fault.body === "string" || Buffer.isBuffer(fault.body)
      ? bufferSource(Buffer.from(fault.body))
      : fault.body;
  let body = given ?? honest.body ?? NO_BODY;
  if (fault.flip !== undefined) {
    body = flipped(body, flipOffset(honest, body, fault.flip));
  }
  if (fault.appendBytes !== undefined) {
    body = resized(body, body.sizeBytes + fault.appendBytes);
  }
  if (fault.shortenTo !== undefined) {
    body = resized(body, Math.min(fault.shortenTo, body.sizeBytes));
  }
  if (fault.gzip === true) {
    body = bufferSource(gzipSync(body.read(0, body.sizeBytes)));
  }
  return body;
}

/** Where in `body` the byte is that was named as a place in the whole; may lie outside of it. */
function flipOffset(
  honest: Answer,
  body: ByteSource,
  flip: NonNullable<Misbehaviour["flip"]>,
): number {
  const { offset, wholeBytes } = honest.part ?? {
    offset: 0,
    wholeBytes: body.sizeBytes,
  };
  if (typeof flip === "number") return flip - offset;
  const places = {
    first: 0,
    middle: Math.floor(wholeBytes / 2),
    last: wholeBytes - 1,
  };
  return places[flip] - offset;
}

function flipped(source: ByteSource, at: number): ByteSource {
  return {
    sizeBytes: source.sizeBytes,
    read(offset, length) {
      const part = source.read(offset, length);
      const byte = part[at - offset];
      if (byte !== undefined) part[at - offset] = byte ^ 0xff;
      return part;
    },
  };
}

/** Cut short, or padded with zeros. */
function resized(source: ByteSource, sizeBytes: number): ByteSource {
  return {
    sizeBytes,
    read(offset, length) {
      const wanted = Math.max(0, Math.min(length, sizeBytes - offset));
      const part = source.read(offset, wanted);
      return Buffer.concat([part], wanted);
    },
  };
}

/** Returns whether the message was sent completely. */
async function writeBody(
  sink: AnswerSink,
  body: ByteSource,
  fault: Misbehaviour,
  isChunked: boolean,
): Promise<boolean> {
  const holdAt = typeof fault.hold?.at === "number" ? fault.hold.at : undefined;
  const stallAt = typeof fault.stallAt === "number" ? fault.stallAt : undefined;
  const cutAt = fault.cut?.atByte;
  const stops = [holdAt, stallAt, cutAt].filter((at) => at !== undefined);
  const rate = fault.bytesPerSecond;
  const partBytes =
    rate === undefined
      ? PART_BYTES
      : Math.max(1, Math.round(rate / DRIPS_PER_SECOND));
  for (let at = 0; ;) {
    if (at === holdAt) await fault.hold?.barrier.pass(sink.gone);
    if (at === stallAt) await goneFrom(sink.gone);
    if (at === cutAt && fault.cut?.by === "rst") sink.reset();
    if (at === cutAt || sink.gone.aborted) return false;
    if (at >= body.sizeBytes) break;
    const next = Math.min(...stops.filter((stop) => stop > at), Infinity);
    const part = body.read(at, Math.min(partBytes, next - at));
    if (isChunked) {
      sink.connection.write(`${part.length.toString(16)}\r\n`);
      await write(sink, part);
      sink.connection.write("\r\n");
    } else {
      await write(sink, part);
    }
    if (sink.gone.aborted) return false;
    at += part.length;
    sink.onBodyBytes(part.length);
    if (rate !== undefined) {
      await delay((1000 * part.length) / rate, undefined, {
        signal: sink.gone,
      }).catch(() => undefined);
    }
  }
  if (isChunked) await write(sink, Buffer.from("0\r\n\r\n"));
  return true;
}

/** Resolves when the kernel has accepted the bytes, or the connection is closed. */
async function write(sink: AnswerSink, bytes: Buffer): Promise<void> {
  if (sink.gone.aborted) return;
  await new Promise<void>((resolve) => {
    sink.connection.write(bytes, () => {
      resolve();
    });
  });
}

async function goneFrom(gone: AbortSignal): Promise<void> {
  if (gone.aborted) return;
  await new Promise<void>((resolve) => {
    gone.addEventListener(
      "abort",
      () => {
        resolve();
      },
      { once: true },
    );
  });
}
