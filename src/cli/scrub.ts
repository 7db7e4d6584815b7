import type { ScrubReport } from "../storage/scrub-report.ts";
import { RootInUseError } from "../storage/storage-root-errors.ts";
import type { Writable } from "node:stream";
import { scrubStoppedStorage } from "../app/open-storage.ts";
import type { Config } from "../config/config.ts";
import { loadCommandConfig } from "./command-config.ts";
import type { CommandOutput } from "./declare-command.ts";
import { systemClock } from "../telemetry/clock.ts";
import {
  findRunningMirror,
  problemText,
  SCRUB_PATH,
} from "./running-mirror.ts";
import { countText, sizeText } from "./output/amounts.ts";
import { type OutputStyle, outputStyle } from "./output/output-style.ts";
import { tableText } from "./output/table.ts";
import { writeOut } from "./write-out.ts";
import { messageOf } from "../telemetry/error-record.ts";

export interface ScrubCommandOptions {
  readonly configFile: string | undefined;
  readonly isRepair: boolean;
  readonly json: boolean;
  readonly env: NodeJS.ProcessEnv;
  /** Absolute. */
  readonly cwd: string;
  readonly stdout: CommandOutput;
  readonly stderr: Writable;
}

/**
 * Scrubs the storage root, through the mirror that runs on it if there is one.
 *
 * @returns the exit code: 0 without findings; 1 with findings, repaired or not, or if a process that
 *   does not answer holds the root; 2 if the scrub failed
 */
export async function runScrub(options: ScrubCommandOptions): Promise<number> {
  const { env, stdout, stderr, isRepair, json } = options;
  const config = await loadCommandConfig(options);
  if (config === undefined) return 2;
  let report: ScrubReport;
  try {
    report = await scrub(config, isRepair);
  } catch (error) {
    const message = messageOf(error);
    await writeOut(stderr, `entrepot: ${message}\n`);
    return error instanceof RootInUseError ? 1 : 2;
  }
  await writeOut(
    stdout,
    json
      ? `${JSON.stringify(report)}\n`
      : textOf(report, outputStyle(stdout, env)),
  );
  return report.findings.length === 0 ? 0 : 1;
}

async function scrub(config: Config, isRepair: boolean): Promise<ScrubReport> {
  const ask = await findRunningMirror(config);
  if (ask === undefined) {
    return scrubStoppedStorage(config.storage, {
      clock: systemClock,
      isRepair,
    });
  }
  const { status, body } = await ask("POST", SCRUB_PATH, {
    repair: isRepair,
  });
  if (status !== 200 || !isReport(body)) {
    throw new Error(
      `the running mirror answered ${status}: ${problemText(body)}`,
    );
  }
  return body;
}

function isReport(body: unknown): body is ScrubReport {
  return (
    typeof body === "object" &&
    body !== null &&
    "findings" in body &&
    Array.isArray(body.findings)
  );
}

function textOf(
  { blobs, bytes, findings }: ScrubReport,
  style: OutputStyle,
): string {
  const repaired = findings.filter((finding) => finding.repaired).length;
  const sum =
    findings.length === 0
      ? "no damage found"
      : `${countText(findings.length, "finding", "findings")}, ${repaired} repaired`;
  const columns = [
    { heading: "FINDING" },
    { heading: "STATE" },
    { heading: "PATH", cut: "middle" },
  ] as const;
  const rows = findings.map(({ code, path, repaired: isRepaired }) => [
    code,
    isRepaired ? "repaired" : ({ text: "damaged", colour: "red" } as const),
    path,
  ]);
  const list = rows.length === 0 ? "" : tableText(columns, rows, style);
  return `${list}${countText(blobs, "blob", "blobs")}, ${sizeText(bytes)}: ${sum}\n`;
}
