import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What of `node:test` says when a test is over: its context, or an `after` of a suite. */
export interface AfterTest {
  after(release: () => Promise<void> | void): void;
}

/** An empty folder that goes with the test. */
export async function tempDir(
  test: AfterTest,
  name = "entrepot-",
): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), name));
  test.after(() => rm(path, { recursive: true, force: true, maxRetries: 3 }));
  return path;
}
