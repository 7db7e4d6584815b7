import { Failed, type ImageBackend } from "./image-backend.ts";
import { countText, sizeText } from "../output/amounts.ts";
import { tableText } from "../output/table.ts";
import type { Outcome } from "./image-output.ts";

/** A command on the content of hosted repositories. */
export type HostedAction =
  | { readonly name: "tag"; readonly source: string; readonly target: string }
  | { readonly name: "untag"; readonly ref: string }
  | { readonly name: "gc"; readonly isDryRun: boolean };

/** @throws Failed if the change is refused */
export async function actOnHosted(
  action: HostedAction,
  backend: ImageBackend,
): Promise<Outcome> {
  switch (action.name) {
    case "tag": {
      const tagged = await backend.tag(action.source, action.target);
      const { source, target, digest } = tagged;
      return {
        json: tagged,
        text: () => `${target} is ${source}, ${digest}\n`,
      };
    }
    case "untag": {
      const untagged = await backend.untag(action.ref);
      if (untagged === undefined) {
        throw new Failed(1, `${action.ref} does not exist`);
      }
      const { ref, digest } = untagged;
      return {
        json: untagged,
        text: () => `removed the tag ${ref} of ${digest}\n`,
      };
    }
    case "gc":
      return collect(backend, action.isDryRun);
    default:
      return action satisfies never;
  }
}

async function collect(
  backend: ImageBackend,
  isDryRun: boolean,
): Promise<Outcome> {
  const { deleted, deletions, blobs, bytes } = await backend.collect(isDryRun);
  const rows = deleted.map(({ ref, reason }) => [ref, reason]);
  const more = deletions - deleted.length;
  if (more > 0) rows.push([`and ${more} more`, ""]);
  const would = isDryRun ? "would be " : "";
  const sums = [
    `${countText(deletions, "tag or manifest", "tags and manifests")} ${would}deleted by retention`,
    `${countText(blobs, "blob", "blobs")}, ${sizeText(bytes)} ${would}freed`,
    ...(isDryRun && deletions > 0
      ? ["not counted: blobs that only the tags and manifests above need"]
      : []),
    ...(deletions === 0 && blobs === 0
      ? [
          "gc is for hosted repositories; 'entrepot evict' frees space of mirrored images",
        ]
      : []),
  ];
  return {
    json: { dryRun: isDryRun, deleted, deletions, blobs, bytes },
    text: (style) => {
      const columns = [
        { heading: "DELETED", cut: "middle" },
        { heading: "REASON" },
      ] as const;
      const list = rows.length === 0 ? "" : tableText(columns, rows, style);
      return `${list}${sums.join("\n")}\n`;
    },
  };
}
