import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "./after-test.ts";
import type { TestMirror } from "./mirror-harness.ts";
import { tempDir } from "./temp-dir.ts";

/**
 * Writes a configuration with which commands find a running mirror, or its storage root later.
 *
 * @returns the path
 */
export async function writeMirrorConfig(
  test: AfterTest,
  mirror: Pick<TestMirror, "operatorOrigin" | "root">,
): Promise<string> {
  const path = join(await tempDir(test), "entrepot.yaml");
  const { host } = new URL(mirror.operatorOrigin);
  await writeFile(
    path,
    JSON.stringify({
      operator: { listen: host },
      storage: { root: mirror.root },
    }),
  );
  return path;
}
