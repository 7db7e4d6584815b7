import type { TagIndex, TagRow } from "../../storage/tag-index.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { CredentialError } from "../../upstream/credentials/login.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { isNotFound } from "./manifest-answers.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";

interface GoneTagsParts {
  readonly index: Pick<TagIndex, "getTag" | "markTagGone" | "removeTag">;
  readonly clock: Clock;
}

/**
 * Handles cached tags that their upstream no longer has, because the publisher deleted them. A pinned
 * tag is served until it is unpinned, any other for `staleIfGone` from the first such response, whose
 * time is in the index.
 */
export class GoneTags {
  readonly #parts: GoneTagsParts;

  constructor(parts: GoneTagsParts) {
    this.#parts = parts;
  }

  /**
   * Marks a cached tag that the upstream reports as gone, or removes its row if it may no longer be
   * served; the manifest stays stored. Other failures change nothing.
   */
  async note(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    error: unknown,
  ): Promise<void> {
    if (!isGone(upstream, error)) return;
    try {
      const row = await this.#parts.index.getTag(key, tag);
      if (row === undefined) return;
      const nowMs = this.#parts.clock.nowMs();
      // A mark in the future means that the clock was set back.
      const goneAtMs = Math.min(row.goneAtMs ?? nowMs, nowMs);
      if (!this.mayServe(upstream, { ...row, goneAtMs })) {
        await this.#parts.index.removeTag(key, tag);
      } else if (row.goneAtMs !== goneAtMs) {
        await this.#parts.index.markTagGone(key, tag, goneAtMs);
      }
    } catch {
      // The upstream's next response repeats it.
    }
  }

  /** Whether a tag that is gone upstream may be served. Returns false for one that is not gone. */
  mayServe(
    { freshness }: MirroredUpstream,
    { goneAtMs, isPinned }: Pick<TagRow, "goneAtMs" | "isPinned">,
  ): boolean {
    if (goneAtMs === undefined) return false;
    return (
      isPinned || this.#parts.clock.nowMs() - goneAtMs < freshness.staleIfGoneMs
    );
  }

  /** Whether the tag is marked as gone, and may be served. */
  async isKept(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<boolean> {
    const row = await this.#parts.index.getTag(key, tag).catch(() => undefined);
    return row !== undefined && this.mayServe(upstream, row);
  }
}

/** A 404; without credentials also 401 and 403, which registries return for missing content. */
export function isGone(
  { client }: MirroredUpstream,
  error: unknown,
): error is UpstreamError {
  if (isNotFound(error)) return true;
  if (!(error instanceof UpstreamError) || error instanceof CredentialError) {
    return false;
  }
  const isRefusal = error.kind === "unauthorized" || error.kind === "denied";
  return isRefusal && !client.hasCredentials;
}
