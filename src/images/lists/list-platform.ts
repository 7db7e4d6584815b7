/** What a fault expects instead of a text that is not a platform. */
export const PLATFORM_FORM = "OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64";

const PART = /^[a-z0-9._-]{1,64}$/;

/** Other names of architectures, as containerd reads them. */
const ARCHITECTURES: ReadonlyMap<string, readonly [string, string?]> = new Map([
  ["x86_64", ["amd64"]],
  ["x86-64", ["amd64"]],
  ["i386", ["386"]],
  ["aarch64", ["arm64"]],
  ["armhf", ["arm", "v7"]],
  ["armel", ["arm", "v6"]],
]);

/** Variants that indexes leave out as often as not: without them every variant is meant. */
const DEFAULT_VARIANTS: ReadonlySet<string> = new Set([
  "amd64/v1",
  "arm64/v8",
  "arm64/8",
]);

/**
 * Reads a platform as engines do, in the names that indexes use.
 *
 * @example "linux/aarch64" and "linux/arm64/v8" are "linux/arm64"
 * @see https://github.com/containerd/platforms/blob/main/database.go
 * @returns undefined if it is not a platform
 */
export function readListPlatform(text: string): string | undefined {
  const [os = "", written = "", variant, ...rest] = text
    .toLowerCase()
    .split("/");
  if (!PART.test(os) || !PART.test(written) || rest.length > 0) {
    return undefined;
  }
  if (variant !== undefined && !PART.test(variant)) return undefined;
  const [arch, implied] = ARCHITECTURES.get(written) ?? [written];
  const chosen = variant ?? implied;
  return chosen === undefined || DEFAULT_VARIANTS.has(`${arch}/${chosen}`)
    ? `${os}/${arch}`
    : `${os}/${arch}/${chosen}`;
}
