import { access, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { runCommand } from "./run-command.ts";

/** Folder into which the Go distribution installs itself; not in every `PATH`. */
export const GO_FOLDER = "/usr/local/go/bin";

/** Covers the download of modules and a compilation on two busy cores. */
const BUILD_TIMEOUT_MS = 10 * 60_000;

/**
 * Returns a folder that is kept between runs, outside of the repository, and makes it if needed.
 *
 * @param name includes the versions of the content: a folder that exists is not made again
 * @param make fills a new folder; if it fails, nothing is kept
 */
export async function cachedFolder(
  name: string,
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  const all = join(cache, "entrepot-tests");
  const folder = join(all, name);
  if (await exists(folder)) return folder;
  await mkdir(all, { recursive: true });
  const making = await mkdtemp(join(all, "making-"));
  try {
    await make(making);
    // The rename is atomic: two runs may make the folder at the same time.
    await rename(making, folder).catch(async (error: unknown) => {
      if (!(await exists(folder))) throw error;
    });
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  return folder;
}

/**
 * Builds a program of a Go module into a folder; Go verifies the module by its checksum database.
 *
 * @param program path and version, for example `example.com/module/cmd/name@v1.2.3`
 * @throws Error if Go is missing or the build fails
 */
export async function goInstall(
  program: string,
  folder: string,
): Promise<void> {
  const env = {
    GOBIN: folder,
    GOFLAGS: "-buildvcs=false",
    PATH: [process.env["PATH"], GO_FOLDER].join(delimiter),
  };
  await runCommand("go", ["version"], { env }).catch((error: unknown) => {
    throw new Error(`needs Go 1.24 or later in PATH or ${GO_FOLDER}`, {
      cause: error,
    });
  });
  await runCommand("go", ["install", program], {
    env,
    timeoutMs: BUILD_TIMEOUT_MS,
  });
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
