import type { Config } from "../../config/config.ts";
import { RootInUseError } from "../../storage/storage-root-errors.ts";
import { messageOf } from "../../telemetry/error-record.ts";
import { loadCommandConfig } from "../command-config.ts";
import type { CommandIo } from "../declare-command.ts";
import { Failed } from "../images/image-backend.ts";
import { type OutputStyle, outputStyle } from "../output/output-style.ts";
import { type AskMirror, problemText } from "../running-mirror.ts";
import { writeOut } from "../write-out.ts";

export interface ReportOptions extends CommandIo {
  readonly configFile: string | undefined;
  readonly json: boolean;
}

/** The result of a command that prints data. */
export interface Report {
  readonly json: unknown;
  readonly text: (style: OutputStyle) => string;
}

/**
 * Runs a command that prints data of a mirror.
 *
 * @param work throws {@link Failed} to end the command with a message
 * @returns the exit code
 */
export async function runReport(
  options: ReportOptions,
  work: (config: Config) => Promise<Report>,
): Promise<number> {
  const { env, stdout, stderr } = options;
  const config = await loadCommandConfig(options);
  if (config === undefined) return 2;
  try {
    const { json, text } = await work(config);
    await writeOut(
      stdout,
      options.json
        ? `${JSON.stringify(json, undefined, 2)}\n`
        : text(outputStyle(stdout, env)),
    );
    return 0;
  } catch (error) {
    await writeOut(stderr, `entrepot: ${messageOf(error)}\n`);
    if (error instanceof Failed) return error.exitCode;
    return error instanceof RootInUseError ? 1 : 2;
  }
}

/** Reads every page of a list of the operator API. @throws Failed with the mirror's reason */
export async function readPages<T>(
  ask: AskMirror,
  path: string,
): Promise<readonly T[]> {
  const items: T[] = [];
  let last: string | null = null;
  do {
    const after: string =
      last === null ? "" : `&last=${encodeURIComponent(last)}`;
    const { status, body } = await ask("GET", `${path}?n=1000${after}`);
    if (status !== 200) throw refusal(status, body);
    const page = body as {
      readonly items: readonly T[];
      readonly next: string | null;
    };
    items.push(...page.items);
    last = page.next;
  } while (last !== null);
  return items;
}

/** Describes an answer of the running mirror that is not a success. */
export function refusal(status: number, body: unknown): Failed {
  return new Failed(
    1,
    `the running mirror answered ${status}: ${problemText(body)}`,
  );
}
