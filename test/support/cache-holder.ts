/*
 * A process that opens the cache at the root it is given, leaves half a blob behind as a fill
 * does, says so in a line, and waits to be killed.
 */
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import { seededBytes } from "./seeded-bytes.ts";

const [root = "", digestText = "", seed = "", size = "0", bootId] =
  process.argv.slice(2);
const digest = parseDigest(digestText);
if (digest === undefined) throw new Error("no digest");
const ignore = (): void => {};
const { blobs } = await openLocalStorage({
  root,
  clock: systemClock,
  log: { info: ignore, warn: ignore, error: ignore },
  ...(bootId === undefined ? {} : { bootId }),
});
const sizeBytes = Number(size);
const partial = await blobs.beginWrite({
  kind: "fill",
  digest,
  expectedBytes: sizeBytes,
});
await partial.append([seededBytes(seed, sizeBytes).read(0, sizeBytes / 2)]);
process.stdout.write("half is stored\n");
setInterval(ignore, 60_000);
