import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { type DockerConfig, dockerServers } from "./docker-config.ts";

export interface HelperFlaw {
  readonly seen: string;
  readonly expected: string;
}

/**
 * Returns why a credential helper cannot be run; undefined if it can, or if there is no `PATH` to
 * look a name up in.
 *
 * @param program a path if it holds a slash, else a name
 * @param searchPath the value of `PATH`
 */
export async function findHelperFlaw(
  program: string,
  searchPath: string | undefined,
): Promise<HelperFlaw | undefined> {
  if (program.includes("/")) {
    const seen = await whyNotRun(program);
    return seen === undefined
      ? undefined
      : { seen: `${program}: ${seen}`, expected: "a program that can be run" };
  }
  if (!searchPath) return undefined;
  for (const folder of searchPath.split(delimiter)) {
    if ((await whyNotRun(join(folder, program))) === undefined) {
      return undefined;
    }
  }
  return {
    seen: `${program}: no such program in PATH`,
    expected: "a program in PATH, or the path of one",
  };
}

/** The programs that a Docker `config.json` names for these endpoints, each once. */
export function helpersOf(
  config: DockerConfig,
  endpoints: readonly URL[],
): readonly string[] {
  const suffixes = endpoints.map(
    (endpoint) =>
      dockerServers(endpoint)
        .map((server) => config.helpers.get(server))
        .find((helper) => helper !== undefined) ?? config.store,
  );
  return [...new Set(suffixes)].flatMap((suffix) =>
    suffix === undefined ? [] : [`docker-credential-${suffix}`],
  );
}

async function whyNotRun(file: string): Promise<string | undefined> {
  try {
    if (!(await stat(file)).isFile()) return "not a regular file";
    await access(file, constants.X_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "EACCES" || code === "EPERM"
      ? "a file that may not be run"
      : "no such file";
  }
}
