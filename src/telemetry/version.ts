import { readFileSync } from "node:fs";

/** The package's version. `package.json` is next to both `src` and `dist`. */
export const VERSION: string = readVersion();

function readVersion(): string {
  const text = readFileSync(
    new URL("../../package.json", import.meta.url),
    "utf8",
  );
  const document: unknown = JSON.parse(text);
  return typeof document === "object" &&
    document !== null &&
    "version" in document &&
    typeof document.version === "string"
    ? document.version
    : "unknown";
}
