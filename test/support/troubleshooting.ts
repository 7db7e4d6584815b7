import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { anchorOf } from "./markdown.ts";

export const TROUBLESHOOTING = join(
  import.meta.dirname,
  "../../deploy/troubleshooting.md",
);

/** One line of a table of messages. */
export interface EngineMessage {
  /** The anchor of the section; of its second table with `-2`. */
  readonly symptom: string;
  /** As in `Podman 5`. */
  readonly engine: string;
  /** A part of what the engine prints. */
  readonly message: string;
}

/** Returns the messages that the page has in tables. */
export async function readEngineMessages(): Promise<readonly EngineMessage[]> {
  const page = await readFile(TROUBLESHOOTING, "utf8");
  const [, ...sections] = page.split(/^## /m);
  return sections.flatMap((section) => {
    const [heading = ""] = section.split("\n");
    const tables = section
      .split(/^\| Engine +\| Message +\|$/m)
      .slice(1)
      .map((text) => text.slice(0, text.indexOf("\n\n")));
    return tables.flatMap((table, index) =>
      [...table.matchAll(/^\| ([A-Z a-z\d.]+?) +\| `(.+?)` +\|$/gm)].map(
        ([, engine = "", message = ""]) => ({
          symptom: `${anchorOf(heading)}${index === 0 ? "" : `-${index + 1}`}`,
          engine,
          message,
        }),
      ),
    );
  });
}
