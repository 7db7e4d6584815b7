import { RegistryError } from "../../../oci/errors.ts";

/** Longest part of a foreign text that a message repeats. */
const MAX_QUOTED = 120;

/**
 * Creates the error of a bundle that is not imported; nothing of it stays stored.
 *
 * @param detail the reason, which names the member or image; foreign text in it went through
 *   {@link quote}
 */
export function refuseBundle(detail: string, cause?: unknown): RegistryError {
  return new RegistryError("MANIFEST_INVALID", {
    status: 400,
    message: "the bundle is refused",
    detail,
    cause,
  });
}

/** Returns text of a bundle for a message: printable, and not too long. */
export function quote(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]/g, "?");
  return printable.length > MAX_QUOTED
    ? `${printable.slice(0, MAX_QUOTED)}…`
    : printable;
}
