import type { Confirm } from "../confirm.ts";
import { confirmRemoval } from "./confirm-removal.ts";
import { Failed, type ImageBackend } from "./image-backend.ts";
import { inspection, type Outcome, sizeText } from "./image-output.ts";

/** A command on images that one reference names, or on all that a pattern matches. */
export interface ImageAction {
  readonly name: "inspect" | "pin" | "unpin" | "refresh" | "rm";
  /** As the operator wrote it. */
  readonly ref: string;
  /** `--yes`: do not ask. */
  readonly isConfirmed: boolean;
  /** Whether a single reference names a hosted image. */
  readonly isHosted: boolean;
}

/** @returns undefined if no such image is stored */
type Act = (backend: ImageBackend, ref: string) => Promise<Outcome | undefined>;

const ACTS: Readonly<Record<ImageAction["name"], Act>> = {
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
        text: `${refreshed.ref} ${refreshed.changed ? "is now" : "is still"} ${refreshed.digest}\n`,
      }
    );
  },
  rm: async (backend, ref) => {
    const removal = await backend.remove(ref);
    return (
      removal && {
        json: removal,
        text: `removed ${removal.ref}; ${sizeText(removal.freedBytes)} freed\n`,
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
      text: `${change.ref} ${isPinned ? "is pinned" : "is no longer pinned"}\n`,
    }
  );
}

/** Returns whether the text names images by a pattern. No reference contains `*`. */
export function isPattern(ref: string): boolean {
  return ref.includes("*");
}

/** @throws Failed if the image is not stored, or its change is refused */
export async function actOnImage(
  { name, ref, isHosted }: ImageAction,
  backend: ImageBackend,
): Promise<Outcome> {
  const outcome = await ACTS[name](backend, ref);
  if (outcome !== undefined) return outcome;
  throw new Failed(
    1,
    name === "refresh"
      ? `${ref} is not found in its registry`
      : `${ref} is not ${isHosted ? "stored" : "cached"}`,
  );
}

/**
 * Acts on every image that the pattern matches. A refused image does not end the command.
 *
 * @throws Failed if no image matches, or if the operator does not confirm the removal
 */
export async function actOnPattern(
  { name, ref: pattern, isConfirmed }: ImageAction,
  backend: ImageBackend,
  confirm: Confirm,
): Promise<Outcome> {
  const matches = await backend.list(pattern);
  // Hosted images have no upstream.
  const images =
    name === "refresh" ? matches.filter(({ hosted }) => !hosted) : matches;
  if (images.length === 0) {
    throw new Failed(
      1,
      matches.length === 0
        ? `no image matches ${pattern}; 'entrepot ls' lists the names`
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
    text: outcomes.map(({ text }) => text).join(""),
    failures,
  };
}
