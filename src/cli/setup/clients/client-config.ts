import { hostname } from "node:os";
import { resolve } from "node:path";
import { messageOf } from "../../../telemetry/error-record.ts";
import { loadCommandConfig } from "../../command-config.ts";
import type { CommandIo } from "../../declare-command.ts";
import { writeOut } from "../../write-out.ts";
import { isRefused } from "./client-address.ts";
import type { ClientSetup } from "./client-setup.ts";
import { ENGINES } from "./engines.ts";
import {
  type PlannedFile,
  planInstall,
  writePlanned,
} from "./install-files.ts";
import { lineDifference } from "./line-difference.ts";
import { readMirrorForClients } from "./mirror-for-clients.ts";

export interface ClientConfigOptions {
  readonly engine: string;
  /** From `--config`. */
  readonly configFile: string | undefined;
  readonly upstreams: readonly string[];
  readonly address: string | undefined;
  readonly caFile: string | undefined;
  readonly isOnly: boolean;
  readonly isInstall: boolean;
  readonly force: boolean;
  /** The folder that stands for `/`. */
  readonly root: string | undefined;
  readonly json: boolean;
  readonly io: Pick<CommandIo, "cwd" | "env" | "stderr" | "stdout">;
}

/**
 * Prints the files with which an engine uses the mirror, or installs them. Notes go to standard error.
 *
 * @returns the exit code: 0; 1 if a file cannot be written or has another author, and none is
 *   written then; 2 for wrong usage or an invalid configuration
 */
export async function runClientConfig(
  options: ClientConfigOptions,
): Promise<number> {
  const { io, isInstall } = options;
  const usage = usageFlaw(options);
  if (usage !== undefined) {
    await writeOut(io.stderr, `entrepot: ${usage}\n`);
    return 2;
  }
  const config = await loadCommandConfig({
    ...io,
    configFile: options.configFile,
  });
  if (config === undefined) return 2;
  const mirror = await readMirrorForClients(config, {
    address: options.address,
    caFile:
      options.caFile === undefined
        ? undefined
        : resolve(io.cwd, options.caFile),
    upstreams: options.upstreams,
    hostname: hostname(),
  });
  if (isRefused(mirror)) {
    await writeOut(io.stderr, `entrepot: ${mirror.flaw}\n`);
    return 2;
  }
  const engine = ENGINES.get(options.engine);
  if (engine === undefined) return 2;
  const setup = engine.setUp(mirror, options.isOnly);
  const notes = [
    ...mirror.notes,
    ...setup.notes,
    ...(mirror.hostedPrefix === undefined
      ? []
      : [`images hosted here are ${mirror.hostedPrefix}/NAME:TAG`]),
  ];
  for (const note of notes) await writeOut(io.stderr, `note: ${note}\n`);
  return isInstall ? install(setup, options) : print(setup, options);
}

function usageFlaw(options: ClientConfigOptions): string | undefined {
  const { engine, isOnly, isInstall, force, root, json } = options;
  const found = ENGINES.get(engine);
  if (found === undefined) {
    return `got engine ${JSON.stringify(engine)}; expected one of ${[...ENGINES.keys()].join(", ")}`;
  }
  if (isOnly && !found.canBeOnly) {
    return `--only: got ${engine}, which always falls back to the registry; expected one of ${[
      ...ENGINES,
    ]
      .filter(([, { canBeOnly }]) => canBeOnly)
      .map(([name]) => name)
      .join(", ")}`;
  }
  if (!isInstall && (force || root !== undefined)) {
    return `got ${force ? "--force" : "--root"} without --install; expected both`;
  }
  return isInstall && json
    ? "got --json with --install; expected one of the two"
    : undefined;
}

async function print(
  { files, notes }: ClientSetup,
  { engine, json, io }: ClientConfigOptions,
): Promise<number> {
  if (json) {
    const document = {
      engine,
      files: files.map(({ path, text, restart }) => ({
        path,
        text,
        restart: restart ?? null,
      })),
      notes,
    };
    await writeOut(io.stdout, `${JSON.stringify(document, undefined, 2)}\n`);
    return 0;
  }
  const texts = files.map(({ path, text }) => `==> ${path} <==\n${text}`);
  await writeOut(io.stdout, texts.join("\n"));
  await writeRestarts(files, io);
  return 0;
}

async function install(
  { files }: ClientSetup,
  { root, force, io }: ClientConfigOptions,
): Promise<number> {
  const folder = resolve(io.cwd, root ?? "/");
  const plan = await planInstall(files, { root: folder, force });
  for (const planned of plan.files) {
    await writeOut(io.stdout, describeChange(planned));
  }
  for (const { path, flaw } of plan.refused) {
    await writeOut(io.stderr, `entrepot: ${path}: ${flaw.trimEnd()}\n`);
  }
  if (plan.refused.length > 0) {
    await writeOut(io.stderr, "entrepot: nothing was written\n");
    return 1;
  }
  const changed = plan.files.filter(({ current, text }) => current !== text);
  try {
    await writePlanned(changed);
  } catch (error) {
    await writeOut(io.stderr, `entrepot: ${messageOf(error)}\n`);
    return 1;
  }
  await writeRestarts(
    changed.map(({ file }) => file),
    io,
  );
  return 0;
}

/** As `diff -u` shows it, with every line of the file. */
function describeChange({ path, current, text }: PlannedFile): string {
  if (current === text) return `${path}: unchanged\n`;
  const from = current === undefined ? "/dev/null" : path;
  const lines = lineDifference(current ?? "", text);
  return [`--- ${from}`, `+++ ${path}`, ...lines, ""].join("\n");
}

async function writeRestarts(
  files: ClientSetup["files"],
  { stderr }: ClientConfigOptions["io"],
): Promise<void> {
  const commands = new Set(files.flatMap(({ restart }) => restart ?? []));
  for (const command of commands) {
    await writeOut(stderr, `then: ${command}\n`);
  }
}
