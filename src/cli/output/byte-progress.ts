import { durationText, sizeText } from "./amounts.ts";
import type { ProgressLine } from "./progress-line.ts";

/**
 * Passes bytes on, and shows how many there were.
 *
 * @param totalBytes about how many there will be; undefined: unknown
 */
export async function* showBytes(
  bytes: AsyncIterable<Uint8Array>,
  line: ProgressLine,
  totalBytes: number | undefined,
): AsyncGenerator<Uint8Array> {
  let passedBytes = 0;
  for await (const chunk of bytes) {
    passedBytes += chunk.length;
    line.show((seconds) => progressText(passedBytes, totalBytes, seconds));
    yield chunk;
  }
}

function progressText(
  bytes: number,
  totalBytes: number | undefined,
  seconds: number,
): string {
  const perSecond = bytes / seconds;
  const rate = `${sizeText(perSecond)}/s`;
  if (totalBytes === undefined || totalBytes === 0) {
    return `${sizeText(bytes)}, ${rate}`;
  }
  const share = Math.min(1, bytes / totalBytes);
  const leftMs = (Math.max(0, totalBytes - bytes) / perSecond) * 1_000;
  return `${Math.floor(share * 100)} %  ${sizeText(bytes)} of ${sizeText(totalBytes)}, ${rate}, about ${durationText(leftMs)} left`;
}
