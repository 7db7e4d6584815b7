import { type Digest, parseDigest } from "../../../oci/digest.ts";
import { INDEX_FILE, LAYOUT_FILE } from "../bundle.ts";

/** The meaning of a member's name in an image layout. */
export type MemberName =
  | { readonly kind: "blob"; readonly digest: Digest }
  | { readonly kind: "index" | "layout" }
  /** A file of `docker save` without a layout, or of skopeo's `docker-archive`. */
  | { readonly kind: "docker" }
  /** A file that is no part of the layout, such as docker's `manifest.json`. */
  | { readonly kind: "other" }
  | { readonly kind: "refused"; readonly reason: string };

const MAX_NAME_LENGTH = 512;
const HEX = "[0-9a-f]{64}";
/** Before Docker 25: a folder for each layer, a config beside it; skopeo's archives: layers beside it. */
const DOCKER_FILE = new RegExp(
  `^(?:${HEX}\\.(?:json|tar)|${HEX}/(?:json|layer\\.tar|VERSION))$`,
);

/**
 * Reads the name of a member of an archive. Names are matched against the layout, and never used as
 * paths.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 */
export function readMemberName(text: string): MemberName {
  if (text.length > MAX_NAME_LENGTH) return refuse("its name is too long");
  if (/[\p{Cc}\\]/u.test(text)) {
    return refuse("its name has an illegal character");
  }
  if (text.startsWith("/")) return refuse("its name is absolute");
  const parts = text.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) return refuse("its name leaves the archive");
  const name = parts.join("/");
  if (name === LAYOUT_FILE) return { kind: "layout" };
  if (name === INDEX_FILE) return { kind: "index" };
  if (DOCKER_FILE.test(name)) return { kind: "docker" };
  const [folder, algorithm = "", hex = "", ...rest] = parts;
  if (folder !== "blobs" || hex === "" || rest.length > 0) {
    return { kind: "other" };
  }
  const digest = parseDigest(`${algorithm}:${hex}`);
  return digest === undefined ? { kind: "other" } : { kind: "blob", digest };
}

function refuse(reason: string): MemberName {
  return { kind: "refused", reason };
}
