import { formatFault } from "../../../config/fault.ts";
import { readTextFile } from "../../../config/files/files.ts";
import { readYaml } from "../../../config/yaml-source.ts";
import { Failed } from "../../images/image-backend.ts";
import { printable } from "../../output/output-style.ts";
import { translateRegistryDocument } from "./translate-registry-config.ts";

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Reads a configuration of Distribution.
 *
 * @returns the same as a configuration of Entrepot, with what was left out as comments
 * @throws Failed
 */
export async function translateRegistryConfig(file: string): Promise<string> {
  const read = await readTextFile(file, MAX_FILE_BYTES);
  if (!read.isRead) {
    throw new Failed(
      2,
      `${file}: got ${read.seen}; expected a configuration of Distribution`,
    );
  }
  const { value, faults } = await readYaml(read.text);
  const [fault] = faults;
  if (fault !== undefined) {
    throw new Failed(2, formatFault({ ...fault, file, path: "" }));
  }
  const translated = translateRegistryDocument(value);
  if (translated === undefined) {
    throw new Failed(
      2,
      `${file}: got a file without the keys version and storage; expected a configuration of Distribution`,
    );
  }
  const { stringify } = await import("yaml");
  const { settings, notes } = translated;
  const comments = notes.map((note) => `# - ${printable(note)}\n`).join("");
  return (
    `# From ${printable(file)}, by 'entrepot takeover --registry-config'. REGISTRY_ variables were not read.\n` +
    stringify(settings, { lineWidth: 0 }) +
    (comments === "" ? "" : `\n# Left out, or to be checked:\n${comments}`)
  );
}
