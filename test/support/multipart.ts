import assert from "node:assert/strict";
import type { RawResponse } from "./raw-client.ts";

export interface BodyPart {
  readonly contentType: string | undefined;
  readonly contentRange: string | undefined;
  readonly bytes: Buffer;
}

/**
 * Parses a `multipart/byteranges` body; the length of each part is taken from its `Content-Range`.
 *
 * @throws AssertionError if bytes are missing or left over
 */
export function readParts({ headers, body }: RawResponse): BodyPart[] {
  const type = headers["content-type"] ?? "";
  const boundary = /^multipart\/byteranges; boundary=([0-9a-f]+)$/.exec(
    type,
  )?.[1];
  assert.ok(boundary, type);
  const parts: BodyPart[] = [];
  let at = 0;
  const take = (text: string): void => {
    assert.equal(body.toString("latin1", at, at + text.length), text);
    at += text.length;
  };
  for (;;) {
    take(`--${boundary}`);
    if (body.toString("latin1", at, at + 2) === "--") break;
    take("\r\n");
    const end = body.indexOf("\r\n\r\n", at);
    const head = new Map(
      body
        .toString("latin1", at, end)
        .split("\r\n")
        .map((line) => line.split(": ", 2) as [string, string])
        .map(([name, value]) => [name.toLowerCase(), value]),
    );
    at = end + 4;
    const contentRange = head.get("content-range");
    const [, first, last] =
      /^bytes (\d+)-(\d+)\/\d+$/.exec(contentRange ?? "") ?? [];
    const length = Number(last) - Number(first) + 1;
    parts.push({
      contentType: head.get("content-type"),
      contentRange,
      bytes: body.subarray(at, at + length),
    });
    at += length;
    take("\r\n");
  }
  take("--\r\n");
  assert.equal(at, body.length);
  return parts;
}
