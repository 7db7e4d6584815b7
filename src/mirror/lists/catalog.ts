import { setImmediate } from "node:timers/promises";
import type { BlobLinks } from "../../storage/blob-index.ts";
import { toRefusal } from "../answers.ts";
import type { Page, PageRequest } from "./pages.ts";

/** The size of a page if the client requests none. */
const DEFAULT_REPOSITORIES = 1_000;

/** Names read in one step after the first: a small page needs no more steps than a large one if many names are hidden. */
const NAMES_IN_A_STEP = 1_000;

/** Returns the name under which an upstream's repositories are listed; undefined: they are not listed. */
export type ListedName = (upstream: string) => string | undefined;

/** The repositories of one upstream. */
interface Block {
  /** As the index names it. */
  readonly upstream: string;
  /** Prefix of each listed name; an upstream's name has no slash, so blocks do not mix. */
  readonly listedPrefix: string;
}

/**
 * Lists a page of the repositories in the cache, in ASCII order, as `upstream/repository` with the
 * upstream's listed name; of one upstream, without its name. A repository that the client may not
 * see appears neither in the page nor in `nextLast`.
 *
 * @throws Refusal
 */
export async function listRepositories(
  index: Pick<BlobLinks, "listRepositories">,
  { n = DEFAULT_REPOSITORIES, last }: PageRequest,
  upstream: string | undefined,
  maySee: (name: string) => boolean,
  listedName: ListedName,
): Promise<Page<string>> {
  if (n === 0) return { entries: [], nextLast: undefined };
  const found: string[] = [];
  // One more than wanted, to know whether another page follows.
  const wanted = n + 1;
  try {
    const blocks =
      upstream === undefined
        ? await findBlocks(index, listedName)
        : [{ upstream, listedPrefix: "" }];
    for (const block of blocks) {
      if (found.length >= wanted) break;
      const names = await readBlock(index, block, last, {
        wanted: wanted - found.length,
        maySee,
      });
      found.push(...names);
    }
  } catch (error) {
    throw toRefusal(error, { wanted: "list", hasCredentials: false });
  }
  const entries = found.slice(0, n);
  return {
    entries,
    nextLast: found.length > n ? entries.at(-1) : undefined,
  };
}

/** Returns the upstreams of the index that are listed, in the order of their listed names. */
async function findBlocks(
  index: Pick<BlobLinks, "listRepositories">,
  listedName: ListedName,
): Promise<readonly Block[]> {
  const blocks: Block[] = [];
  for (let after = ""; ;) {
    const [first] = await index.listRepositories(1, after);
    if (first === undefined) break;
    const { upstream } = first;
    const listed = listedName(upstream);
    if (listed !== undefined) {
      blocks.push({ upstream, listedPrefix: `${listed}/` });
    }
    // In ASCII, 0 follows the slash: this skips all repositories of the upstream.
    after = `${upstream}0`;
  }
  return blocks.toSorted((one, other) =>
    one.listedPrefix < other.listedPrefix ? -1 : 1,
  );
}

async function readBlock(
  index: Pick<BlobLinks, "listRepositories">,
  { upstream, listedPrefix }: Block,
  last: string | undefined,
  {
    wanted,
    maySee,
  }: { readonly wanted: number; readonly maySee: (name: string) => boolean },
): Promise<readonly string[]> {
  const prefix = `${upstream}/`;
  const isWithin = last?.startsWith(listedPrefix) === true;
  // The client has received all names of this upstream.
  if (last !== undefined && !isWithin && last > listedPrefix) return [];
  let after = isWithin ? prefix + last.slice(listedPrefix.length) : prefix;
  const found: string[] = [];
  let step = wanted;
  while (found.length < wanted) {
    const names = (await index.listRepositories(step, after)).map(
      (key) => `${key.upstream}/${key.repository}`,
    );
    for (const name of names) {
      if (name.startsWith(prefix) && maySee(name)) {
        found.push(listedPrefix + name.slice(prefix.length));
      }
    }
    const isEnd =
      names.length < step || names.at(-1)?.startsWith(prefix) !== true;
    if (isEnd) break;
    after = names.at(-1) ?? after;
    step = Math.max(step, NAMES_IN_A_STEP);
    // The index answers synchronously: let other requests run in between.
    await setImmediate();
  }
  return found;
}
