import { stringify } from "yaml";
import { openStoppedStorage } from "../../app/open-storage.ts";
import type { Config } from "../../config/config.ts";
import { parseImageText } from "../../images/image-reference.ts";
import { type Wish, Wishes } from "../../images/wishes.ts";
import { referenceText } from "../../oci/reference.ts";
import { systemClock } from "../../telemetry/clock.ts";
import { minuteText } from "../output/amounts.ts";
import type { OutputStyle } from "../output/output-style.ts";
import { tableText } from "../output/table.ts";
import { findRunningMirror } from "../running-mirror.ts";
import { readPages, type ReportOptions, runReport } from "./run-report.ts";

export interface WishesOptions extends ReportOptions {
  /** Undefined: a table. */
  readonly format: "list" | "skopeo" | undefined;
}

const QUIET = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/**
 * Lists the names that could not be had, of the running mirror or of the storage root of a stopped one.
 *
 * @returns the exit code: 0 done; 1 the mirror failed, or another process has the root; 2 invalid
 *   configuration, or the root could not be opened
 */
export function runWishes(options: WishesOptions): Promise<number> {
  const { format } = options;
  return runReport(options, async (config) => {
    const wishes = await readWishes(config);
    return {
      json: wishes,
      text: (style) =>
        format === undefined
          ? wishTable(wishes, style)
          : format === "list"
            ? wishes.map(({ ref }) => `${ref}\n`).join("")
            : skopeoText(wishes),
    };
  });
}

async function readWishes(config: Config): Promise<readonly Wish[]> {
  const ask = await findRunningMirror(config);
  if (ask !== undefined) return readPages<Wish>(ask, "/api/v1/wishes");
  const storage = await openStoppedStorage(config.storage, {
    clock: systemClock,
    log: QUIET,
  });
  if (storage === undefined) return [];
  try {
    const wishes = new Wishes({
      index: storage.index,
      clock: systemClock,
      log: QUIET,
    });
    const { items } = await wishes.list({ n: Infinity, last: undefined });
    await wishes.stop();
    return items;
  } finally {
    await storage.close();
  }
}

/** Most wanted first. */
function wishTable(wishes: readonly Wish[], style: OutputStyle): string {
  if (wishes.length === 0) {
    return "no image that clients asked for is missing\n";
  }
  return tableText(
    [
      { heading: "IMAGE", cut: "middle" },
      { heading: "REASON" },
      { heading: "PULLS", align: "right" },
      { heading: "LAST" },
    ],
    wishes
      .toSorted((one, other) => other.count - one.count)
      .map(({ ref, reason, count, lastAt }) => [
        ref,
        reason,
        `${count}`,
        minuteText(lastAt),
      ]),
    style,
  );
}

/**
 * Formats wishes for `skopeo sync --src yaml`:
 *
 * ```yaml
 * docker.io:
 *   images:
 *     library/alpine: ["3.20"]
 * ```
 */
function skopeoText(wishes: readonly Wish[]): string {
  const registries = new Map<string, { images: Map<string, string[]> }>();
  for (const { ref } of wishes) {
    const image = parseImageText(ref);
    if (image === undefined) continue;
    const { upstream, repository } = image.key;
    const registry = registries.get(upstream) ?? { images: new Map() };
    const references = registry.images.get(repository) ?? [];
    references.push(referenceText(image.reference));
    registry.images.set(repository, references);
    registries.set(upstream, registry);
  }
  return registries.size === 0 ? "" : stringify(registries);
}
