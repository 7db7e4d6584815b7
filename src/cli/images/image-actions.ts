import type { ImageSummary } from "../../images/images.ts";
import type { Confirm } from "../confirm.ts";
import { confirmRemoval } from "./confirm-removal.ts";
import { Failed, type ImageBackend } from "./image-backend.ts";
import { inspection, type Outcome } from "./image-output.ts";
import { sizeText } from "../output/amounts.ts";

type ActionName = "inspect" | "pin" | "unpin" | "refresh" | "rm";

/** A command on one image. */
export interface ImageAction {
  readonly name: ActionName;
  /** As the operator wrote it. */
  readonly ref: string;
  readonly fullName: string;
  readonly isHosted: boolean;
}

/** A command on every image that a pattern matches. */
export interface PatternAction {
  readonly name: Exclude<ActionName, "inspect">;
  /** As the operator wrote it. */
  readonly ref: string;
  /** The pattern as engines would read it; undefined if they would not. */
  readonly expanded: string | undefined;
  /** `--yes`: do not ask. */
  readonly isConfirmed?: boolean;
}

/** @returns undefined if no such image is stored */
type Act = (backend: ImageBackend, ref: string) => Promise<Outcome | undefined>;

const ACTS: Readonly<Record<ActionName, Act>> = {
  inspect: async (backend, ref) => {
    const image = await backend.inspect(ref);
    return image && inspection(image);
  },
  pin: (backend, ref) => setPinned(backend, ref, true),
  unpin: (backend, ref) => setPinned(backend, ref, false),
  refresh: async (backend, ref) => {
    const refreshed = await backend.refresh(ref);
    return (
      refreshed && {
        json: refreshed,
        text: () =>
          `${refreshed.ref} ${refreshed.changed ? "is now" : "is still"} ${refreshed.digest}\n`,
      }
    );
  },
  rm: async (backend, ref) => {
    const removal = await backend.remove(ref);
    return (
      removal && {
        json: removal,
        text: () =>
          `removed ${removal.ref}; ${sizeText(removal.freedBytes)} freed\n`,
      }
    );
  },
};

async function setPinned(
  backend: ImageBackend,
  ref: string,
  isPinned: boolean,
): Promise<Outcome | undefined> {
  const change = await backend.setPinned(ref, isPinned);
  return (
    change && {
      json: change,
      text: () =>
        `${change.ref} ${isPinned ? "is pinned" : "is no longer pinned"}\n`,
    }
  );
}

/** Returns whether the text names images by a pattern. No reference contains `*`. */
export function isPattern(ref: string): boolean {
  return ref.includes("*");
}

/** Lists the images that a pattern matches as it is written, otherwise as engines would read it. */
export async function listMatches(
  backend: Pick<ImageBackend, "list">,
  pattern: string,
  expanded: string | undefined,
): Promise<readonly ImageSummary[]> {
  const images = await backend.list(pattern);
  return images.length > 0 || expanded === undefined || expanded === pattern
    ? images
    : backend.list(expanded);
}

/** Describes a pattern that matches nothing, with what may be meant instead. */
export function noMatchText(pattern: string): string {
  return pattern === "*"
    ? "no image matches *; '**' matches every image"
    : `no image matches ${pattern}; 'entrepot ls' lists the names`;
}

/** @throws Failed if the image is not stored, or its change is refused */
export async function actOnImage(
  { name, ref, fullName, isHosted }: ImageAction,
  backend: ImageBackend,
): Promise<Outcome> {
  const outcome = await ACTS[name](backend, ref);
  if (outcome !== undefined) return outcome;
  const image = ref === fullName ? ref : `${ref} (${fullName})`;
  throw new Failed(
    1,
    name === "refresh"
      ? `${image} is not found in its registry`
      : `${image} is not ${isHosted ? "stored" : "cached"}`,
  );
}

/**
 * Acts on every image that the pattern matches. A refused image does not end the command.
 *
 * @throws Failed if no image matches, or if the operator does not confirm the removal
 */
export async function actOnPattern(
  { name, ref: pattern, expanded, isConfirmed = false }: PatternAction,
  backend: ImageBackend,
  confirm: Confirm,
): Promise<Outcome> {
  const matches = await listMatches(backend, pattern, expanded);
  // Hosted images have no upstream.
  const images =
    name === "refresh" ? matches.filter(({ hosted }) => !hosted) : matches;
  if (images.length === 0) {
    throw new Failed(
      1,
      matches.length === 0
        ? noMatchText(pattern)
        : `every image that matches ${pattern} is hosted here and has no upstream`,
    );
  }
  if (name === "rm" && !isConfirmed) {
    await confirmRemoval(backend, images, confirm);
  }
  const outcomes: Outcome[] = [];
  const failures: string[] = [];
  for (const { ref } of images) {
    try {
      const outcome = await ACTS[name](backend, ref);
      // Undefined: removed since the list was read.
      if (outcome !== undefined) outcomes.push(outcome);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      failures.push(`${ref}: ${error.message}`);
    }
  }
  return {
    json: outcomes.map(({ json }) => json),
    text: (style) => outcomes.map(({ text }) => text(style)).join(""),
    failures,
  };
}
