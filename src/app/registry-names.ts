import { setTimeout as delay } from "node:timers/promises";
import type { Config } from "../config/config.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { UpstreamSet } from "./upstream-set.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { HostedManifests } from "../storage/hosted-index.ts";

/** The parts of the index that know under which names content is stored. */
export type NamedContent = Pick<BlobLinks, "listRepositories"> &
  Pick<HostedManifests, "listHostedRegistries">;

type Registries = Pick<Config, "hosted" | "upstreams">;

/** A name whose stored content belongs to a registry of the other kind. */
export interface NameConflict {
  readonly name: string;
  /** The fault of the configuration. */
  readonly text: string;
}

export interface CheckedNames {
  readonly conflicts: readonly NameConflict[];
  /** Hosted registries that have content and are not configured: the content stays, and is not served. */
  readonly orphans: readonly string[];
}

/**
 * Compares the names of the configuration with those of stored content. Mirrored and hosted content
 * have keys of the same form, so a name that changed its kind would serve the content of the other
 * registry, with other rights.
 */
export async function checkNames(
  index: NamedContent,
  { hosted, upstreams }: Registries,
): Promise<CheckedNames> {
  const stored = await index.listHostedRegistries();
  const withContent = new Set(stored.map(({ registry }) => registry));
  const conflicts: NameConflict[] = [];
  const taken = new Set<string>();
  for (const { name, aliases } of upstreams) {
    for (const one of [name, ...aliases]) {
      taken.add(one);
      if (withContent.has(one)) conflicts.push(asUpstream(name, one));
    }
  }
  for (const { name } of hosted) {
    taken.add(name);
    if (withContent.has(name)) continue;
    const [first] = await index.listRepositories(1, `${name}/`);
    if (first?.upstream === name) conflicts.push(asHosted(name));
  }
  const orphans = [...withContent].filter((name) => !taken.has(name));
  return { conflicts, orphans };
}

function asUpstream(upstream: string, name: string): NameConflict {
  const alias = name === upstream ? "" : ` with the alias ${name}`;
  return {
    name,
    text: `upstreams.${upstream}: got an upstream${alias}, although content was pushed to the hosted registry ${name}; expected another name, or hosted.${name} again until its images are removed`,
  };
}

function asHosted(name: string): NameConflict {
  return {
    name,
    text: `hosted.${name}: got a hosted registry, although mirrored content is stored under this name; expected another name, or the upstream again until its images are removed: entrepot rm '${name}/**'`,
  };
}

/** The configuration gives a name to a registry of the other kind than the stored content's. */
export class NameConflictError extends Error {
  constructor(conflicts: readonly NameConflict[]) {
    super(conflicts.map(({ text }) => text).join("\n"));
    this.name = "NameConflictError";
  }
}

/** The time that the start waits for an index that is being restored. */
const START_WAIT_MS = 1_000;

/**
 * Checks the names at the start, so that no content is served under a registry of the other kind. If the
 * index can't answer yet, the check follows when it can; names in conflict are then no longer routed.
 *
 * @throws NameConflictError if names are in conflict
 */
export async function guardNames(
  config: Registries,
  {
    index,
    recovered,
    set,
    log,
    waitMs = START_WAIT_MS,
  }: {
    readonly index: NamedContent;
    /** Resolves when the index is restored, or never. */
    readonly recovered: Promise<unknown>;
    readonly set: Pick<UpstreamSet, "block" | "reserve">;
    readonly log: Pick<Logger, "error" | "warn">;
    readonly waitMs?: number;
  },
): Promise<void> {
  const check = async (): Promise<CheckedNames> => {
    const checked = await checkNames(index, config);
    const { orphans } = checked;
    if (orphans.length > 0) {
      // No template may make upstreams of these names.
      set.reserve(orphans);
      log.warn(
        { registries: orphans },
        "hosted registries with content are not configured; their content stays and is not served",
      );
    }
    return checked;
  };
  const first = check().catch(() => undefined);
  const stop = new AbortController();
  const late = delay(waitMs, undefined, { signal: stop.signal });
  const checked = await Promise.race([first, late.catch(() => undefined)]);
  stop.abort();
  if (checked !== undefined) {
    const { conflicts } = checked;
    if (conflicts.length > 0) throw new NameConflictError(conflicts);
    return;
  }
  const block = ({ conflicts }: CheckedNames): void => {
    if (conflicts.length === 0) return;
    set.block(conflicts.map(({ name }) => name));
    log.error(
      { faults: conflicts.map(({ text }) => text) },
      "registries whose names belong to other stored content are not served",
    );
  };
  void first
    .then(async (found) => found ?? recovered.then(check))
    .then(block)
    .catch((error: unknown) => {
      log.error({ err: error }, "could not compare registries with the index");
    });
}

/**
 * Checks the names of a changed configuration, if any name changed.
 *
 * @throws NameConflictError if names are in conflict
 */
export async function checkChangedNames(
  index: NamedContent,
  before: Registries,
  next: Registries,
): Promise<void> {
  if (nameText(before) === nameText(next)) return;
  const { conflicts } = await checkNames(index, next);
  if (conflicts.length > 0) throw new NameConflictError(conflicts);
}

function nameText({ hosted, upstreams }: Registries): string {
  return JSON.stringify([
    hosted.map(({ name }) => name),
    upstreams.map(({ name, aliases }) => [name, aliases]),
  ]);
}
