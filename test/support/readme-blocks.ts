import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { codeBlocksOf } from "./markdown.ts";

const README = join(import.meta.dirname, "../../README.md");

/**
 * Returns the shell commands of one section of the README, by block.
 *
 * @throws Error if there is no such section
 */
export async function readmeBlocks(
  heading: string,
): Promise<readonly (readonly string[])[]> {
  const section = (await readFile(README, "utf8"))
    .split(/^##+ /m)
    .find((text) => text.startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`no section ${heading}`);
  return codeBlocksOf(section)
    .filter(({ language }) => language === "sh")
    .map(({ text }) => text.trimEnd().split("\n"));
}
