import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import type { Flaw } from "../fault.ts";
import { seenIn } from "./files.ts";
import { type DockerConfig, dockerServers } from "./docker-config.ts";

/**
 * Returns why a credential helper cannot be run; undefined if it can, or if there is no `PATH` to
 * search for a name.
 *
 * @param program a path if it has a slash, otherwise a name
 * @param searchPath the value of `PATH`
 */
export async function findHelperFlaw(
  program: string,
  searchPath: string | undefined,
): Promise<Flaw | undefined> {
  if (program.includes("/")) {
    const seen = await whyNotRun(program);
    return seen === undefined
      ? undefined
      : { seen: seenIn(program, seen), expected: "an executable program" };
  }
  if (!searchPath) return undefined;
  for (const folder of searchPath.split(delimiter)) {
    if ((await whyNotRun(join(folder, program))) === undefined) {
      return undefined;
    }
  }
  return {
    seen: seenIn(program, "no such program in PATH"),
    expected: "a program in PATH, or the path of one",
  };
}

/** Returns the programs that a Docker `config.json` names for these endpoints, each once. */
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
      ? "permission denied"
      : "no such file";
  }
}
