import type { ImageSummary } from "../../images/images.ts";
import type { Confirm } from "../confirm.ts";
import { Failed, type ImageBackend } from "./image-backend.ts";
import { countText, sizeText } from "../output/amounts.ts";

/**
 * Asks for confirmation before more than half of the cache is evicted.
 *
 * @throws Failed if the operator declines or cannot be asked
 */
export async function confirmEviction(
  backend: ImageBackend,
  toBytes: number | undefined,
  confirm: Confirm,
): Promise<void> {
  const storedBytes = await backend.storedBytes();
  const plan = await backend.evict({ toBytes, isDryRun: true });
  await confirmAmount(confirm, {
    verb: "Evict",
    subject: "evict",
    images: plan.images.length,
    bytes: plan.freedBytes,
    storedBytes,
    hint: "Add --yes to confirm, or --dry-run to list the images",
  });
}

/**
 * Asks for confirmation before a pattern removes more than half of the cache. Parts that several
 * images share are counted for each of them.
 *
 * @throws Failed if the operator declines or cannot be asked
 */
export async function confirmRemoval(
  backend: ImageBackend,
  images: readonly ImageSummary[],
  confirm: Confirm,
): Promise<void> {
  const storedBytes = await backend.storedBytes();
  const bytes = images.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  await confirmAmount(confirm, {
    verb: "Remove",
    subject: "rm",
    images: images.length,
    bytes: Math.min(bytes, storedBytes),
    storedBytes,
    hint: "Add --yes to confirm, or list the images with 'entrepot ls'",
  });
}

async function confirmAmount(
  confirm: Confirm,
  removal: {
    readonly verb: string;
    /** The command. */
    readonly subject: string;
    readonly images: number;
    readonly bytes: number;
    readonly storedBytes: number;
    readonly hint: string;
  },
): Promise<void> {
  const { verb, subject, images, bytes, storedBytes, hint } = removal;
  if (bytes * 2 <= storedBytes) return;
  const amount = `${countText(images, "image", "images")}, ${sizeText(bytes)} of ${sizeText(storedBytes)} in the cache`;
  const confirmation = await confirm(`${verb} ${amount}?`);
  if (confirmation === "agreed") return;
  throw confirmation === "declined"
    ? new Failed(1, "declined; nothing was removed")
    : new Failed(
        2,
        `${subject} would remove ${amount}; nothing was removed. ${hint}`,
      );
}
