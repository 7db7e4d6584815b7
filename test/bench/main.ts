import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { parseDuration, parseSize } from "../../src/config/schema/units.ts";
import type { Figure } from "./figure.ts";
import { FIGURES } from "./figures.ts";
import { describeMachine, type Machine, missingCommands } from "./machine.ts";
import { type FigureReport, formatReports } from "./report.ts";
import { type ProfileKind, Rig, type RigOptions } from "./rig.ts";

const USAGE = `npm run bench [-- NAME… [options]]

  NAME               figures to take; all of them where none is named
  --list             names and titles of the figures
  --rounds N         how often each contestant has its turn (3)
  --latency DURATION how much longer a round trip to the upstream takes, as in 20ms
  --rate SIZE        bytes a second of the link to the upstream, as in 100MB
  --untouched        skip the touching of new memory before turns (see README.md)
  --profile cpu|heap writes profiles of Entrepot beside the results
  --out FOLDER       where the results go (bench-results)
`;

/** docker-registry is the upstream and a contestant. */
const ALWAYS_NEEDED = ["docker-registry"];

class UsageError extends Error {}

interface Options {
  readonly figures: readonly Figure[];
  readonly out: string;
  readonly rig: RigOptions;
}

function readOptions(): Options | "help" | "list" {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: "boolean", short: "h" },
      list: { type: "boolean" },
      rounds: { type: "string", default: "3" },
      latency: { type: "string" },
      rate: { type: "string" },
      untouched: { type: "boolean", default: false },
      profile: { type: "string" },
      out: { type: "string", default: "bench-results" },
    },
  });
  if (values.help === true) return "help";
  if (values.list === true) return "list";
  const figures =
    positionals.length === 0 ? FIGURES : positionals.map(findFigure);
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new UsageError("--rounds takes a number from 1");
  }
  const out = resolve(values.out);
  return {
    figures,
    out,
    rig: {
      rounds,
      touchesMemory: !values.untouched,
      link: readLink(values.latency, values.rate),
      profile:
        values.profile === undefined
          ? undefined
          : { kind: readProfileKind(values.profile), folder: out },
    },
  };
}

function findFigure(name: string): Figure {
  const figure = FIGURES.find((candidate) => candidate.name === name);
  if (figure === undefined) throw new UsageError(`no figure is named ${name}`);
  return figure;
}

function readLink(
  latency: string | undefined,
  rate: string | undefined,
): RigOptions["link"] {
  if (latency === undefined && rate === undefined) return undefined;
  const latencyMs = latency === undefined ? 0 : parseDuration(latency);
  const bytesPerSecond = rate === undefined ? Infinity : parseSize(rate);
  if (latencyMs === undefined || latencyMs === Infinity) {
    throw new UsageError("--latency takes a duration, as in 20ms");
  }
  if (bytesPerSecond === undefined || bytesPerSecond === 0) {
    throw new UsageError("--rate takes a size, as in 100MB");
  }
  return { latencyMs, bytesPerSecond };
}

function readProfileKind(text: string): ProfileKind {
  if (text !== "cpu" && text !== "heap") {
    throw new UsageError("--profile takes cpu or heap");
  }
  return text;
}

async function take(
  figure: Figure,
  options: RigOptions,
): Promise<FigureReport> {
  const { name, title } = figure;
  const startMs = performance.now();
  const missing = await missingCommands([...ALWAYS_NEEDED, ...figure.commands]);
  if (missing.length > 0) {
    const reason = `not installed: ${missing.join(", ")}`;
    return { name, title, seconds: 0, outcome: "not measured", reason };
  }
  const rig = await Rig.open(options);
  // Stop all started processes if the run is interrupted.
  const onSignal = () => {
    void rig.close().finally(() => process.exit(130));
  };
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  const seconds = () => Math.round((performance.now() - startMs) / 100) / 10;
  try {
    const result = await figure.run(rig);
    return { name, title, seconds: seconds(), outcome: "measured", ...result };
  } catch (error) {
    process.stderr.write(`${String(error)}\n`);
    process.exitCode = 1;
    const [reason = ""] = String(error).split("\n");
    return { name, title, seconds: seconds(), outcome: "not measured", reason };
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
    await rig.close();
  }
}

function markdown(machine: Machine, reports: readonly FigureReport[]): string {
  const versions = Object.entries(machine.versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(", ");
  return [
    `Measured on ${machine.date}: ${machine.platform}, ${machine.cores} cores, ${machine.memoryGib} GiB of memory; ${versions}.`,
    formatReports(reports),
    "",
  ].join("\n\n");
}

async function run(options: Options): Promise<void> {
  await mkdir(options.out, { recursive: true });
  const machine = await describeMachine();
  const reports: FigureReport[] = [];
  for (const figure of options.figures) {
    process.stderr.write(`${figure.name}: ${figure.title} … `);
    const report = await take(figure, options.rig);
    process.stderr.write(`${report.seconds} s\n`);
    process.stdout.write(`${formatReports([report])}\n\n`);
    reports.push(report);
    await writeFile(
      join(options.out, "results.json"),
      JSON.stringify({ machine, reports }, null, 2),
    );
    await writeFile(
      join(options.out, "results.md"),
      markdown(machine, reports),
    );
  }
  if (reports.length > 1) process.stdout.write(markdown(machine, reports));
}

try {
  const options = readOptions();
  if (options === "help") process.stdout.write(USAGE);
  else if (options === "list") {
    for (const { name, title } of FIGURES) {
      process.stdout.write(`${name.padEnd(20)} ${title}\n`);
    }
  } else await run(options);
} catch (error) {
  const isUsage =
    error instanceof UsageError ||
    (error instanceof TypeError && "code" in error);
  process.stderr.write(
    isUsage ? `bench: ${error.message}\n\n${USAGE}` : `${String(error)}\n`,
  );
  process.exitCode = isUsage ? 2 : 1;
}
