import { setImmediate } from "node:timers/promises";
import type { MetadataIndex } from "../cache/metadata-index.ts";
import { toRefusal } from "./answers.ts";
import type { Page, PageRequest } from "./pages.ts";

/** A page when the client names no number. */
const DEFAULT_REPOSITORIES = 1_000;

/** Of names that the client may not see as many are passed over in one step: a small page costs no more steps than a large one. */
const NAMES_IN_A_STEP = 1_000;

/**
 * A page of the repositories in the cache, in ASCII order, as `upstream/repository`; of one
 * upstream, without its name. What may not be seen leaves no trace in it, nor in `nextLast`.
 *
 * @throws Refusal
 */
export async function listRepositories(
  index: Pick<MetadataIndex, "listRepositories">,
  { n = DEFAULT_REPOSITORIES, last }: PageRequest,
  upstream: string | undefined,
  maySee: (name: string) => boolean,
): Promise<Page<string>> {
  if (n === 0) return { entries: [], nextLast: undefined };
  const prefix = upstream === undefined ? "" : `${upstream}/`;
  let after =
    last === undefined ? (prefix === "" ? undefined : prefix) : prefix + last;
  const seen: string[] = [];
  try {
    // One more than is wanted tells whether there is a next page.
    let step = n + 1;
    while (seen.length <= n) {
      const names = (await index.listRepositories(step, after)).map(
        (key) => `${key.upstream}/${key.repository}`,
      );
      seen.push(
        ...names.filter((name) => name.startsWith(prefix) && maySee(name)),
      );
      after = names.at(-1);
      const isEnd = names.length < step || after?.startsWith(prefix) !== true;
      if (isEnd) break;
      step = Math.max(step, NAMES_IN_A_STEP);
      // The index answers at once: others come in between.
      await setImmediate();
    }
  } catch (error) {
    throw toRefusal(error, { wanted: "list", hasCredentials: false });
  }
  const own = seen.map((name) => name.slice(prefix.length));
  const entries = own.slice(0, n);
  return {
    entries,
    nextLast: own.length > n ? entries.at(-1) : undefined,
  };
}
