import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type AfterTest, tempDir } from "./temp-dir.ts";

/** A program that implements the credential-helper protocol as scripted by a test. */
export interface TestHelper {
  /** Absolute. */
  readonly program: string;
  /** What it does from now on: a shell's script; the server stands in `$server`. */
  does(script: string): Promise<void>;
  /** What it prints from now on. */
  gives(username: string, secret: string): Promise<void>;
  /** The servers it was asked for, one a run, with its arguments before. */
  runs(): Promise<readonly string[]>;
}

export async function makeHelper(
  test: AfterTest,
  name = "docker-credential-test",
): Promise<TestHelper> {
  const folder = await tempDir(test);
  const program = join(folder, name);
  const log = join(folder, "runs");
  const answer = join(folder, "answer");
  const does = async (script: string): Promise<void> => {
    await writeFile(
      program,
      `#!/bin/sh\nserver=$(cat)\necho "$* $server" >> '${log}'\n${script}\n`,
    );
    await chmod(program, 0o700);
  };
  await does(`cat '${answer}'`);
  return {
    program,
    does,
    async gives(Username, Secret) {
      const content = { ServerURL: "https://registry.test", Username, Secret };
      await writeFile(answer, JSON.stringify(content));
      await does(`cat '${answer}'`);
    },
    async runs() {
      const text = await readFile(log, "utf8").catch(() => "");
      return text.split("\n").filter((line) => line !== "");
    },
  };
}
