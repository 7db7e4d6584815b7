import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AfterTest, releaseAfter } from "./after-test.ts";

export type { AfterTest };

/** An empty folder that goes with the test. */
export async function tempDir(
  test: AfterTest,
  name = "entrepot-",
): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), name));
  releaseAfter(test, () =>
    rm(path, { recursive: true, force: true, maxRetries: 3 }),
  );
  return path;
}
