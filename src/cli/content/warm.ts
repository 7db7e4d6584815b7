import { homedir } from "node:os";
import type { Job } from "../../images/jobs/job.ts";
import type { ListFormat } from "../../images/lists/list-entry.ts";
import type { WarmPlan } from "../../images/warm/warm-plan.ts";
import { MAX_WARM_BYTES } from "../../images/warm/warm-request.ts";
import { messageOf } from "../../telemetry/error-record.ts";
import { loadCommandConfig } from "../command-config.ts";
import type { CommandIo } from "../declare-command.ts";
import { sizeText } from "../output/amounts.ts";
import { Failed } from "../images/image-backend.ts";
import { outputStyle } from "../output/output-style.ts";
import {
  type AskMirror,
  findRunningMirror,
  problemText,
  unreachableText,
  WARM_PATH,
} from "../running-mirror.ts";
import { writeOut } from "../write-out.ts";
import { checkPlatforms } from "./check-platforms.ts";
import { followJob } from "./follow-job.ts";
import { readWarmArguments, type WarmArguments } from "./warm-lists.ts";
import { endText, failuresText, notesText, planText } from "./warm-output.ts";

export interface WarmOptions extends CommandIo {
  readonly args: readonly string[];
  readonly configFile: string | undefined;
  readonly format: ListFormat | undefined;
  readonly platforms: readonly string[];
  readonly withReferrers: boolean;
  readonly concurrency: number | undefined;
  readonly isDryRun: boolean;
  readonly wait: boolean;
  readonly pin: boolean;
  /** Leaves the job to the mirror. */
  readonly isDetached: boolean;
  readonly json: boolean;
}

/**
 * Orders the running mirror to make images present, and shows the progress of the job.
 *
 * @returns the exit code: 0 done; 1 an image failed, the end of the job is unknown, or no mirror runs;
 *   2 wrong usage or invalid configuration
 */
export async function runWarm(options: WarmOptions): Promise<number> {
  const { stderr } = options;
  const config = await loadCommandConfig(options);
  if (config === undefined) return 2;
  try {
    checkPlatforms(options.platforms);
    const args = await readWarmArguments(options.args, {
      ...options,
      home: homedir(),
    });
    const body = orderOf(args, options);
    const ask = await findRunningMirror(config);
    if (ask === undefined) {
      throw new Failed(
        1,
        `warm needs a running mirror, and ${unreachableText(config.operator)}; start it with 'entrepot serve'`,
      );
    }
    return options.isDryRun
      ? await runPlan(ask, body, options)
      : await runJob(ask, body, options);
  } catch (error) {
    await writeOut(stderr, `entrepot: ${messageOf(error)}\n`);
    return error instanceof Failed ? error.exitCode : 1;
  }
}

/** @throws Failed if the lists are too long for one request */
function orderOf(
  { lists, refs }: WarmArguments,
  options: WarmOptions,
): Record<string, unknown> {
  const { platforms, withReferrers, concurrency, wait, pin } = options;
  const body = {
    lists,
    refs,
    platforms,
    withReferrers,
    ...(concurrency === undefined ? {} : { concurrency }),
    wait,
    pin,
    dryRun: options.isDryRun,
  };
  const sizeBytes = Buffer.byteLength(JSON.stringify(body));
  if (sizeBytes <= MAX_WARM_BYTES) return body;
  throw new Failed(
    2,
    `got lists of ${sizeText(sizeBytes)}; expected at most ${sizeText(MAX_WARM_BYTES)} in one run: split them`,
  );
}

async function runPlan(
  ask: AskMirror,
  order: unknown,
  { stdout, stderr, env, json }: WarmOptions,
): Promise<number> {
  const plan = await post<WarmPlan>(ask, order, 200);
  await writeOut(
    stdout,
    json
      ? `${JSON.stringify(plan, undefined, 2)}\n`
      : planText(plan, outputStyle(stdout, env)),
  );
  await writeOut(stderr, notesText(plan.notes));
  await writeOut(stderr, failuresText(plan.errors, plan.errorCount));
  return plan.errorCount === 0 ? 0 : 1;
}

async function runJob(
  ask: AskMirror,
  order: unknown,
  options: WarmOptions,
): Promise<number> {
  const { stdout, stderr, json } = options;
  const job = await post<Job>(ask, order, 202);
  if (options.isDetached) {
    await writeOut(
      stdout,
      json
        ? `${JSON.stringify(job, undefined, 2)}\n`
        : `job ${job.id}: ${job.state}; see 'entrepot jobs ${job.id}'\n`,
    );
    return 0;
  }
  const startedAtMs = performance.now();
  const ended = await followJob(ask, job, { ...options, isQuiet: json });
  // The reason was printed; the job continues.
  if (ended === undefined) return 1;
  await writeOut(
    stdout,
    json
      ? `${JSON.stringify(ended, undefined, 2)}\n`
      : endText(ended, performance.now() - startedAtMs),
  );
  await writeOut(stderr, notesText(ended.notes));
  await writeOut(stderr, failuresText(ended.errors, ended.errorCount));
  return ended.state === "done" && ended.errorCount === 0 ? 0 : 1;
}

/** @throws Failed with the mirror's reason */
async function post<T>(
  ask: AskMirror,
  order: unknown,
  wanted: number,
): Promise<T> {
  const { status, body } = await ask("POST", WARM_PATH, order);
  if (status === wanted) return body as T;
  throw new Failed(
    status === 400 ? 2 : 1,
    `the running mirror refused the order: ${problemText(body)}`,
  );
}
