import { setImmediate } from "node:timers/promises";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { HostedManifests } from "../storage/hosted-index.ts";
import { explainStorageFailure } from "../hosted/storage-failures.ts";
import type { Page, PageRequest } from "../mirror/lists/pages.ts";
import type { RepositoryName } from "../oci/reference.ts";

/** The size of a page if the client requests none. */
const DEFAULT_REPOSITORIES = 1_000;

/** Names read in one step after the first, so that a small page does not need many steps if most names are hidden. */
const NAMES_IN_A_STEP = 1_000;

/** The names under which repositories are listed, by which clients can pull them. */
export interface CatalogNames {
  /**
   * Returns the name under which a registry's repositories are listed. Empty: without a registry's
   * name, as for the hosted default. Undefined: they are not listed.
   */
  readonly listedName: (registry: string) => string | undefined;
  readonly isHosted: (registry: string) => boolean;
  /** Whether a name without a registry belongs to the hosted default, and its first component is not a registry. */
  readonly isOfDefault: (name: string) => boolean;
}

/** Reads a page of the repositories, see {@link createCatalog}. */
export type ListCatalog = (
  page: PageRequest,
  registry: string | undefined,
  maySee: (name: string) => boolean,
  names: CatalogNames,
) => Promise<Page<string>>;

type CatalogIndex = Pick<BlobLinks, "listRepositories"> &
  Pick<HostedManifests, "listHostedRepositories">;

/** The repositories of one registry. */
interface Block {
  /** The registry's name in the index. */
  readonly registry: string;
  /** Prefix of each listed name; a registry's name has no slash, so blocks do not mix. */
  readonly listedPrefix: string;
  readonly isHosted: boolean;
}

interface Search {
  readonly last: string | undefined;
  readonly wanted: number;
  readonly maySee: (name: string) => boolean;
  readonly names: CatalogNames;
}

/**
 * Creates the catalog: mirrored repositories in the cache and hosted repositories with a manifest, a
 * page at a time in ASCII order, as `registry/repository` with the registry's listed name; of one
 * registry, without its name. A repository that the client may not see, given to `maySee` as
 * `registry/repository`, appears neither in the page nor in `nextLast`. Throws RegistryError.
 */
export function createCatalog(index: CatalogIndex): ListCatalog {
  return async (
    { n = DEFAULT_REPOSITORIES, last },
    registry,
    maySee,
    names,
  ) => {
    if (n === 0) return { entries: [], nextLast: undefined };
    // One more than wanted, to know whether another page follows.
    const search = { last, wanted: n + 1, maySee, names };
    try {
      const blocks =
        registry === undefined
          ? await findBlocks(index, names)
          : [
              {
                registry,
                listedPrefix: "",
                isHosted: names.isHosted(registry),
              },
            ];
      const found = await readBlocks(index, blocks, search, registry);
      const entries = found.slice(0, n);
      return {
        entries,
        nextLast: found.length > n ? entries.at(-1) : undefined,
      };
    } catch (error) {
      throw explainStorageFailure(error);
    }
  };
}

/** Returns the registries of the index that are listed, in the order of their listed names. */
async function findBlocks(
  index: CatalogIndex,
  { listedName, isHosted }: CatalogNames,
): Promise<readonly Block[]> {
  const blocks: Block[] = [];
  for (let after = ""; ;) {
    const [first] = await index.listRepositories(1, after);
    if (first === undefined) break;
    const { upstream: registry } = first;
    const listed = listedName(registry);
    if (listed !== undefined) {
      const listedPrefix = listed === "" ? "" : `${listed}/`;
      blocks.push({ registry, listedPrefix, isHosted: isHosted(registry) });
    }
    // In ASCII, 0 follows the slash: this skips all repositories of the registry.
    after = `${registry}0`;
  }
  return blocks.toSorted((one, other) =>
    one.listedPrefix < other.listedPrefix ? -1 : 1,
  );
}

/** Names with a prefix are sorted if their blocks are; those without one lie between them. */
async function readBlocks(
  index: CatalogIndex,
  blocks: readonly Block[],
  search: Search,
  only: string | undefined,
): Promise<readonly string[]> {
  const { wanted, names } = search;
  const prefixed: string[] = [];
  const bare: string[] = [];
  for (const block of blocks) {
    const found = block.listedPrefix === "" ? bare : prefixed;
    if (found.length >= wanted) continue;
    const isListed =
      block.listedPrefix === "" && only === undefined
        ? names.isOfDefault
        : () => true;
    found.push(
      ...(await readBlock(
        index,
        block,
        { ...search, wanted: wanted - found.length },
        isListed,
      )),
    );
  }
  if (bare.length === 0) return prefixed;
  return [...bare, ...prefixed].toSorted(byAscii).slice(0, wanted);
}

function byAscii(one: string, other: string): number {
  return one < other ? -1 : 1;
}

async function readBlock(
  index: CatalogIndex,
  block: Block,
  { last, wanted, maySee }: Search,
  isListed: (name: string) => boolean,
): Promise<readonly string[]> {
  const { registry, listedPrefix } = block;
  const isWithin = last?.startsWith(listedPrefix) === true;
  // The client has received all names of this registry.
  if (last !== undefined && !isWithin && last > listedPrefix) return [];
  let after = isWithin ? last.slice(listedPrefix.length) : "";
  const found: string[] = [];
  let step = wanted;
  while (found.length < wanted) {
    const read = await readNames(index, block, step, after);
    for (const name of read) {
      if (isListed(name) && maySee(`${registry}/${name}`)) {
        found.push(listedPrefix + name);
      }
    }
    if (read.length < step) break;
    after = read.at(-1) ?? after;
    step = Math.max(step, NAMES_IN_A_STEP);
    // The index answers synchronously: let other requests run in between.
    await setImmediate();
  }
  return found.slice(0, wanted);
}

/** Reads names of one registry; fewer than the limit at its end. */
async function readNames(
  index: CatalogIndex,
  { registry, isHosted }: Block,
  limit: number,
  after: string,
): Promise<readonly string[]> {
  if (isHosted) {
    const last = after === "" ? undefined : (after as RepositoryName);
    return index.listHostedRepositories(registry, limit, last);
  }
  const keys = await index.listRepositories(limit, `${registry}/${after}`);
  return keys
    .filter(({ upstream }) => upstream === registry)
    .map(({ repository }) => repository);
}
