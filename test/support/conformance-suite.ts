import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { cachedFolder, goInstall } from "./cached-tool.ts";

const MODULE = "github.com/opencontainers/distribution-spec/conformance";

/** Version of the specification's main branch; Go verifies its content by its checksum database. */
const MODULE_VERSION = "v0.0.0-20260831232431-97274622c111";

const RUN_TIMEOUT_MS = 5 * 60_000;

/**
 * Builds the OCI conformance suite, or reuses the program that an earlier run built.
 *
 * @returns the path of the program
 * @throws Error if Go is missing or the build fails
 */
export async function buildConformanceSuite(): Promise<string> {
  const folder = await cachedFolder(
    `conformance-${MODULE_VERSION}`,
    async (making) => goInstall(`${MODULE}@${MODULE_VERSION}`, making),
  );
  return join(folder, "conformance");
}

/** One test of the suite. */
export interface ConformanceCase {
  /** Includes the names of the enclosing groups; a name is not unique. */
  readonly name: string;
  readonly status: "Pass" | "FAIL" | "Error" | "Skip" | "Disabled";
  /** Reasons that the suite prints for a failed case. */
  readonly reasons: readonly string[];
}

/** Content of the registry for the suite to read: lists of digests or tags. */
export interface ReadOnlyData {
  readonly tags: readonly string[];
  readonly manifests: readonly string[];
  readonly blobs: readonly string[];
  readonly referrers: readonly string[];
}

export interface ConformanceRun {
  /** `1.1`, or `dev` for the specification's main branch. */
  readonly version: "1.1" | "dev";
  /** `127.0.0.1:PORT`, plain HTTP. */
  readonly registry: string;
  readonly repository: string;
  readonly data: ReadOnlyData;
  /** Folder for the suite's own reports. */
  readonly results: string;
}

/**
 * Runs the suite without its writes, and parses the results that it prints. Its exit code is
 * ignored: with read-only data the suite panics in `ReportResultsYAML`, which misses the data set of
 * a skipped case, before it writes `junit.xml`.
 *
 * @throws Error with the whole output if it contains no results
 */
export async function runConformance(
  program: string,
  { version, registry, repository, data, results }: ConformanceRun,
): Promise<readonly ConformanceCase[]> {
  const printed = await run(program, results, {
    OCI_VERSION: version,
    OCI_REGISTRY: registry,
    OCI_REPO1: repository,
    OCI_REPO2: repository,
    OCI_API_PUSH: "false",
    OCI_API_BLOBS_DELETE: "false",
    OCI_API_MANIFESTS_DELETE: "false",
    OCI_API_TAGS_DELETE: "false",
    OCI_API_BLOBS_DIGEST_HEADER: "true",
    // With read-only data the suite reads the header from a response that it did not keep
    // (ManifestHeadExists, ManifestGetExists): these cases would fail with any registry.
    OCI_API_MANIFESTS_DIGEST_HEADER: "false",
    OCI_RO_DATA_TAGS: data.tags.join(" "),
    OCI_RO_DATA_MANIFESTS: data.manifests.join(" "),
    OCI_RO_DATA_BLOBS: data.blobs.join(" "),
    OCI_RO_DATA_REFERRERS: data.referrers.join(" "),
  });
  const [, report] =
    /^Test results\n([^]*?)^Configuration:$/m.exec(printed) ?? [];
  if (report === undefined) {
    throw new Error(`the conformance suite printed no results:\n${printed}`);
  }
  return readReport(report);
}

export interface FullConformanceRun extends Pick<
  ConformanceRun,
  "version" | "registry" | "results"
> {
  /** The suite pushes to the first, and mounts blobs of it in the second. */
  readonly repositories: readonly [string, string];
}

/** The numbers that the suite counts itself. */
export interface ConformanceResult {
  readonly tests: number;
  readonly failures: number;
  readonly errors: number;
  readonly skipped: number;
  /** Cases that did not pass, with what the suite reports of them. */
  readonly complaints: readonly string[];
}

/**
 * Runs the whole suite: every API and every kind of data, but sparse manifests.
 *
 * @throws Error with the whole output if it wrote no `junit.xml`
 */
export async function runFullConformance(
  program: string,
  { version, registry, repositories, results }: FullConformanceRun,
): Promise<ConformanceResult> {
  const [repository, other] = repositories;
  const printed = await run(program, results, {
    OCI_VERSION: version,
    OCI_REGISTRY: registry,
    OCI_REPO1: repository,
    OCI_REPO2: other,
    // Manifests that name missing content are refused.
    OCI_DATA_SPARSE: "false",
    OCI_API_BLOBS_DIGEST_HEADER: "true",
    OCI_API_BLOBS_UPLOAD_CANCEL: "true",
    OCI_API_MANIFESTS_DIGEST_HEADER: "true",
    OCI_API_MANIFESTS_TAG_PARAM: "true",
  });
  const file = join(results, "junit.xml");
  const report = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new Error(`the conformance suite wrote no results:\n${printed}`, {
      cause,
    });
  });
  return readJunit(report);
}

/** Returns what the suite printed, also if it failed. */
async function run(
  program: string,
  results: string,
  settings: Readonly<Record<string, string>>,
): Promise<string> {
  const options = {
    env: {
      ...process.env,
      OCI_TLS: "disabled",
      OCI_RESULTS_DIR: results,
      ...settings,
    },
    cwd: results,
    timeout: RUN_TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: 16 * 1024 * 1024,
  } as const;
  return new Promise<string>((resolve) => {
    execFile(program, [], options, (_error, stdout, stderr) =>
      resolve(`${stdout}\n${stderr}`),
    );
  });
}

const SUITE = /<testsuite ([^>]*)>/;
const TEST_CASE = /<testcase ([^>]*?)(?:\/>|>([^]*?)<\/testcase>)/g;

function readJunit(report: string): ConformanceResult {
  const [, suite = ""] = SUITE.exec(report) ?? [];
  const complaints: string[] = [];
  for (const [, head = "", body = ""] of report.matchAll(TEST_CASE)) {
    const status = attribute(head, "status");
    if (status === "passed") continue;
    const [, reasons = ""] =
      /<system-out>([^]*?)<\/system-out>/.exec(body) ?? [];
    complaints.push(`${status}: ${attribute(head, "name")}: ${reasons}`);
  }
  const count = (name: string): number => Number(attribute(suite, name) || 0);
  return {
    tests: count("tests"),
    failures: count("failures"),
    errors: count("errors"),
    skipped: count("skipped"),
    complaints,
  };
}

function attribute(head: string, name: string): string {
  const [, value = ""] = new RegExp(`\\b${name}="([^"]*)"`).exec(head) ?? [];
  return value;
}

const CASE =
  /^ *(OCI Conformance Test.*): (Pass|FAIL|Error|Skip|Disabled|Unknown)$/;
const REASON = /^ *- (.*)$/;

function readReport(report: string): ConformanceCase[] {
  const cases: (ConformanceCase & { readonly reasons: string[] })[] = [];
  for (const line of report.split("\n")) {
    const [, name = "", status = ""] = CASE.exec(line) ?? [];
    if (name !== "") {
      const known = status as ConformanceCase["status"];
      cases.push({ name, status: known, reasons: [] });
      continue;
    }
    const [, reason] = REASON.exec(line) ?? [];
    if (reason !== undefined) cases.at(-1)?.reasons.push(reason);
  }
  return cases;
}
