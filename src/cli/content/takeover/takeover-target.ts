import { statSync } from "node:fs";
import { dirname } from "node:path";
import {
  createStoppedStorage,
  openStoppedStorage,
  readStorageSpace,
} from "../../../app/open-storage.ts";
import type { Config, HostedConfig } from "../../../config/config.ts";
import { DryTarget } from "../../../images/takeover/dry-target.ts";
import {
  HostedTarget,
  judgeHostedManifest,
} from "../../../images/takeover/hosted-target.ts";
import {
  MirroredTarget,
  readMirroredManifest,
} from "../../../images/takeover/mirrored-target.ts";
import {
  asForeignFileStore,
  findStored,
  type ForeignFileStore,
} from "../../../images/takeover/publish-blob.ts";
import type {
  TakeoverCounts,
  TakeoverTarget,
} from "../../../images/takeover/takeover.ts";
import {
  parseRepositoryName,
  type RepositoryName,
} from "../../../oci/reference.ts";
import { amountOf } from "../../../retention/room-limits.ts";
import {
  createRoutes,
  repositoryKey,
  type RouteHints,
  type Routes,
} from "../../../routing/routes.ts";
import { storedBytes } from "../../../storage/metadata-index.ts";
import type { Storage } from "../../../storage/storage.ts";
import { systemClock } from "../../../telemetry/clock.ts";
import { Failed } from "../../images/image-backend.ts";
import { sizeText } from "../../output/amounts.ts";

/** The registry that the content is recorded under. */
export type TakeoverRegistry =
  | { readonly kind: "mirrored"; readonly upstream: string }
  | {
      readonly kind: "hosted";
      readonly config: HostedConfig;
      /** Empty, or with a slash at its end. */
      readonly prefix: string;
    };

export function targetText(registry: TakeoverRegistry): string {
  return registry.kind === "mirrored"
    ? registry.upstream
    : `${registry.config.name}/${registry.prefix}`.replace(/\/$/, "");
}

/** Reads `--upstream` or `--into`. @throws Failed */
export function readTarget(
  {
    upstream,
    into,
  }: {
    readonly upstream: string | undefined;
    readonly into: string | undefined;
  },
  config: Config,
): TakeoverRegistry {
  if ((upstream === undefined) === (into === undefined)) {
    throw new Failed(
      2,
      "expected either --upstream NAME, if the registry was a pull-through proxy, or --into REGISTRY, if images were pushed to it",
    );
  }
  return upstream === undefined
    ? readHosted(into ?? "", config.hosted)
    : readUpstream(upstream, config);
}

function readUpstream(name: string, config: Config): TakeoverRegistry {
  const routed = routesOf(config).routeRegistry({ ...NO_HINTS, prefix: name });
  const registry = routed.ok ? routed.registry : undefined;
  if (registry?.kind === "mirrored") {
    return { kind: "mirrored", upstream: registry.upstream.name };
  }
  const names = config.upstreams.map((upstream) => upstream.name).join(", ");
  throw new Failed(
    2,
    `--upstream: got ${name}; expected an upstream of the configuration: ${names}`,
  );
}

function readHosted(
  into: string,
  registries: readonly HostedConfig[],
): TakeoverRegistry {
  const slashAt = into.indexOf("/");
  const name = slashAt === -1 ? into : into.slice(0, slashAt);
  const path = slashAt === -1 ? "" : into.slice(slashAt + 1).replace(/\/$/, "");
  const config = registries.find((registry) => registry.name === name);
  if (config === undefined) {
    const names = registries.map((registry) => registry.name).join(", ");
    throw new Failed(
      2,
      `--into: got ${into}; expected a hosted registry of the configuration${names === "" ? ", which has none" : `: ${names}`}`,
    );
  }
  if (path === "") return { kind: "hosted", config, prefix: "" };
  if (parseRepositoryName(path) === undefined) {
    throw new Failed(
      2,
      `--into: got ${into}; expected a hosted registry, or one with a path such as ${name}/team`,
    );
  }
  return { kind: "hosted", config, prefix: `${path}/` };
}

const NO_HINTS: RouteHints = {
  prefix: undefined,
  ns: undefined,
  host: undefined,
};

function routesOf(config: Config): Routes {
  return createRoutes(
    config.upstreams,
    config.upstreamTemplates,
    config.hosted,
  );
}

/** A take-over with an open storage. */
export interface OpenTakeover {
  readonly target: TakeoverTarget;
  /** Returns what an operator must know before the mirror is started. */
  findWarnings(counts: TakeoverCounts): Promise<readonly string[]>;
  close(): Promise<void>;
}

export interface TakeoverRequest {
  readonly target: TakeoverRegistry;
  readonly tree: string;
  readonly isDryRun: boolean;
}

const LOG = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** @throws RootInUseError, StorageError, IndexError */
export async function openTakeover(
  config: Config,
  request: TakeoverRequest,
): Promise<OpenTakeover> {
  const open = request.isDryRun ? openStoppedStorage : createStoppedStorage;
  const storage = await open(config.storage, { clock: systemClock, log: LOG });
  try {
    await storage?.upkeep.recovered();
    const target = createTarget(config, request, storage);
    return {
      target,
      findWarnings: (counts) => findWarnings(config, request, storage, counts),
      close: async () => storage?.close(),
    };
  } catch (error) {
    await storage?.close();
    throw error;
  }
}

function createTarget(
  config: Config,
  { target: registry, tree, isDryRun }: TakeoverRequest,
  storage: Storage | undefined,
): TakeoverTarget {
  const store = storage && asForeignFileStore(storage.blobs);
  const routes = routesOf(config);
  const real = storage && store && realTarget(routes, registry, storage, store);
  if (!isDryRun) {
    if (real !== undefined) return real;
    throw new Failed(2, "the storage cannot take files of another registry");
  }
  const isMirrored = registry.kind === "mirrored";
  const isSameSystem = isOnFileSystemOf(config.storage.root, tree);
  return new DryTarget({
    takesParts: isMirrored,
    keyOf: (name) => keyOf(routes, registry, name),
    isLinkable: ({ userId }) => isSameSystem && mayLink(userId),
    isStored: async (blob) =>
      storage !== undefined &&
      (await findStored({ ...storage, store: storage.blobs }, blob)) !==
        undefined,
    judgeManifest: (bytes) => {
      if (registry.kind === "hosted") {
        return judgeHostedManifest(bytes, registry.config);
      }
      const read = readMirroredManifest(bytes);
      return "manifest" in read ? undefined : read;
    },
    judgeTag: real && ((key, tag) => real.judgeTag(key, tag)),
  });
}

function realTarget(
  routes: Routes,
  registry: TakeoverRegistry,
  { index }: Storage,
  store: ForeignFileStore,
): TakeoverTarget {
  const parts = {
    index,
    store,
    clock: systemClock,
    keyOf: (name: RepositoryName) => keyOf(routes, registry, name),
  };
  return registry.kind === "mirrored"
    ? new MirroredTarget(parts)
    : new HostedTarget({ ...parts, config: registry.config });
}

function keyOf(
  routes: Routes,
  registry: TakeoverRegistry,
  name: RepositoryName,
) {
  if (registry.kind === "hosted") {
    const repository = parseRepositoryName(`${registry.prefix}${name}`);
    return repository && { upstream: registry.config.name, repository };
  }
  const hints = { ...NO_HINTS, prefix: registry.upstream };
  const routed = routes.routeRepository(hints, name);
  return routed.ok ? repositoryKey(routed) : undefined;
}

/** Files can be linked within one file system only. */
function isOnFileSystemOf(root: string, tree: string): boolean {
  const { dev } = statSync(tree);
  for (let path = root; ; path = dirname(path)) {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats !== undefined) return stats.dev === dev;
    if (path === dirname(path)) return false;
  }
}

/** Linux lets only root and the owner link a file, as `fs.protected_hardlinks` demands by default. */
function mayLink(userId: number): boolean {
  const ownId = process.geteuid?.() ?? 0;
  return ownId === 0 || ownId === userId;
}

async function findWarnings(
  config: Config,
  { target, isDryRun }: TakeoverRequest,
  storage: Storage | undefined,
  counts: TakeoverCounts,
): Promise<readonly string[]> {
  const warnings: string[] = [];
  const { eviction } = config;
  const space = await readStorageSpace(config.storage);
  const stored = storage ? storedBytes(await storage.index.totals()) : 0;
  const bytes = stored + (isDryRun ? counts.bytes : 0);
  const maxBytes = amountOf(eviction.maxSize, space, Infinity);
  if (bytes > maxBytes) {
    warnings.push(
      `warning: ${sizeText(bytes)} ${isDryRun ? "would be" : "are"} stored, and eviction.maxSize is ${sizeText(maxBytes)}: the mirror evicts mirrored images until the limit holds; raise eviction.maxSize before it is started`,
    );
  }
  const minFreeBytes = amountOf(eviction.minFree, space, 0);
  if (space !== undefined && space.freeBytes < minFreeBytes) {
    warnings.push(
      `warning: ${sizeText(space.freeBytes)} are free, and eviction.minFree is ${sizeText(minFreeBytes)}: the mirror evicts mirrored images, and linked ones free no space while the old folder exists; remove it, or lower eviction.minFree, before the mirror is started`,
    );
  }
  if (target.kind === "hosted" && isDryRun) {
    const { name, quotaBytes } = target.config;
    const used = (await storage?.index.listHostedRegistries())?.find(
      ({ registry }) => registry === name,
    );
    const needed = (used?.bytes ?? 0) + counts.bytes;
    if (needed > quotaBytes) {
      warnings.push(
        `warning: ${name} would have ${sizeText(needed)}, and its quota is ${sizeText(quotaBytes)}: images above it are refused`,
      );
    }
  }
  return warnings;
}
