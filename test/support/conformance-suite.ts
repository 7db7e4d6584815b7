import { execFile } from "node:child_process";
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
  const env = {
    ...process.env,
    OCI_VERSION: version,
    OCI_REGISTRY: registry,
    OCI_TLS: "disabled",
    OCI_REPO1: repository,
    OCI_REPO2: repository,
    OCI_RESULTS_DIR: results,
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
  };
  const options = {
    env,
    cwd: results,
    timeout: RUN_TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: 16 * 1024 * 1024,
  } as const;
  const printed = await new Promise<string>((resolve) => {
    execFile(program, [], options, (_error, stdout, stderr) =>
      resolve(`${stdout}\n${stderr}`),
    );
  });
  const [, report] =
    /^Test results\n([^]*?)^Configuration:$/m.exec(printed) ?? [];
  if (report === undefined) {
    throw new Error(`the conformance suite printed no results:\n${printed}`);
  }
  return readReport(report);
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
