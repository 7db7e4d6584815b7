import type { MergedText } from "./client-setup.ts";

/** The names of the section that reads `config_path`, by the version of the file. */
const PLUGINS = new Map([
  [2, "io.containerd.grpc.v1.cri"],
  [3, "io.containerd.cri.v1.images"],
]);

/** A table of a registry in the older form, which containerd rejects next to `config_path`. */
const OLDER_FORM = /\.registry\.(?:mirrors|configs)\./;

/** Returns the content of a new `config.toml` that names the folder of the `hosts.toml` files. */
export function newConfigToml(folder: string): string {
  return `version = 2\n\n${sectionOf(2, folder)}`;
}

/**
 * Names the folder of the `hosts.toml` files in an existing `config.toml`. Changes or adds that one key
 * and keeps every other byte.
 *
 * @returns a flaw with the lines to add by hand, if the file's form leaves the place open
 */
export function mergeConfigToml(current: string, folder: string): MergedText {
  const lines = current.split("\n");
  const written = /^\s*version\s*=\s*(\d+)\s*(?:#.*)?$/m.exec(current)?.[1];
  const version = Number(written ?? 1);
  const plugin = PLUGINS.get(version);
  const refuse = (got: string): MergedText => ({
    isMerged: false,
    flaw: `got ${got}; expected these lines:\n${sectionOf(plugin === undefined ? 2 : version, folder)}`,
  });
  if (plugin === undefined) return refuse(`version ${written ?? "1"}`);
  const header = lines.findIndex((line) => isHeaderOf(line, plugin));
  const keyAt = lines.findIndex((line) => /^\s*config_path\s*=/.test(line));
  if (keyAt >= 0 && namesFolder(lines[keyAt] ?? "", folder)) {
    return { isMerged: true, text: current };
  }
  if (lines.some((line) => OLDER_FORM.test(line))) {
    return refuse("registries in registry.mirrors or registry.configs");
  }
  if (header < 0) {
    // Only a new table at the end is certain to be outside of everything else.
    return keyAt >= 0 || hasOtherForm(current)
      ? refuse("another form of the registry section")
      : {
          isMerged: true,
          text: `${current.replace(/\n*$/, "\n")}\n${sectionOf(version, folder)}`,
        };
  }
  const after = lines.findIndex(
    (line, index) => index > header && /^\s*\[/.test(line),
  );
  const end = after < 0 ? lines.length : after;
  if (keyAt < 0) {
    const indent = /^\s*/.exec(lines[header] ?? "")?.[0] ?? "";
    const made = `${indent}  config_path = "${folder}"`;
    return {
      isMerged: true,
      text: lines.toSpliced(header + 1, 0, made).join("\n"),
    };
  }
  const empty = /^(\s*config_path\s*=\s*)(?:""|'')(\s*(?:#.*)?)$/.exec(
    lines[keyAt] ?? "",
  );
  if (keyAt < header || keyAt >= end || empty === null) {
    return refuse("another config_path");
  }
  const [, key = "", rest = ""] = empty;
  const made = `${key}"${folder}"${rest}`;
  return { isMerged: true, text: lines.with(keyAt, made).join("\n") };
}

function sectionOf(version: number, folder: string): string {
  const plugin = PLUGINS.get(version) ?? "";
  return `[plugins."${plugin}".registry]\n  config_path = "${folder}"\n`;
}

function isHeaderOf(line: string, plugin: string): boolean {
  const [, quoted = ""] =
    /^\s*\[\s*plugins\s*\.\s*["']([^"']+)["']\s*\.\s*registry\s*\]\s*(?:#.*)?$/.exec(
      line,
    ) ?? [];
  return quoted === plugin;
}

/** A list of folders is joined by colons. */
function namesFolder(line: string, folder: string): boolean {
  const [, value = ""] = /=\s*["'](.*)["']/.exec(line) ?? [];
  return value
    .split(":")
    .map((path) => path.replace(/\/+$/, ""))
    .includes(folder);
}

/** Inline tables, dotted keys and texts of several lines may define the section in other words. */
function hasOtherForm(text: string): boolean {
  return /"""|'''|=\s*\{|^\s*\[.*\bregistry\b|^[^=\n#]*\bregistry\b.*=/m.test(
    text,
  );
}
