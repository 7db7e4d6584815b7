import { join } from "node:path";
import { writeFile } from "node:fs/promises";
import { runCommand } from "../support/run-command.ts";
import { MANIFEST_TYPE } from "./registry-files.ts";

export interface WrkOptions {
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
  /** Lua script that determines the requests. */
  readonly script?: string;
}

export interface WrkReport {
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
}

/** Prints the numbers with all digits; wrk's own report rounds them. */
const DONE = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("REPORT %d %d %d %d\\n", summary.requests, summary.bytes,
    summary.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
`;

/** @throws Error if any request failed */
export async function runWrk(
  dir: string,
  { url, connections, seconds, script = "" }: WrkOptions,
): Promise<WrkReport> {
  const file = join(dir, "wrk.lua");
  await writeFile(file, script + DONE);
  const { stdout } = await runCommand("wrk", [
    "--threads=1",
    `--connections=${connections}`,
    `--duration=${seconds}s`,
    `--script=${file}`,
    `--header=Accept: ${MANIFEST_TYPE}`,
    url,
  ]);
  const found = /^REPORT (\d+) (\d+) (\d+) (\d+)$/m.exec(stdout);
  if (found === null) throw new Error(`wrk said nothing of use:\n${stdout}`);
  const [requests = 0, bytes = 0, microseconds = 0, errors = 0] = found
    .slice(1)
    .map(Number);
  if (errors > 0) throw new Error(`${url}: ${errors} requests failed`);
  return {
    requestsPerSecond: (requests * 1e6) / microseconds,
    bytesPerSecond: (bytes * 1e6) / microseconds,
  };
}
