import type { Digest } from "./digest.ts";

/**
 * A child as a manifest describes it.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/descriptor.md
 */
export interface Descriptor {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
}

/** How a manifest names a child: as a manifest of its own, or as a blob. */
export type ChildRole = "manifest" | "blob";

export interface ChildDescriptor extends Descriptor {
  readonly role: ChildRole;
  /** A layer that carries `urls` and is fetched by engines from there; a pull is complete without it. */
  readonly isForeign: boolean;
}
