import { homedir } from "node:os";
import type { Config } from "../../../config/config.ts";
import { loadConfig } from "../../../config/load.ts";
import type { CommandIo } from "../../declare-command.ts";
import { findRunningMirror } from "../../running-mirror.ts";

/** More would not fit a screen. */
const MAX_REFS = 200;
/** A shell waits for the answer while its user types. */
const TIMEOUTS = { statusMs: 1_000, orderMs: 2_000, scrubMs: 0 };

/**
 * Lists references of stored images that begin with a text: full names, and those of the default
 * registry as engines write them. Only a running mirror is asked, since opening the storage root of a
 * stopped one takes its lock.
 *
 * @returns an empty list if no mirror answers or the configuration is faulty
 */
export async function completeRefs(
  io: Pick<CommandIo, "env" | "cwd">,
  configFile: string | undefined,
  start: string,
): Promise<readonly string[]> {
  const { env, cwd } = io;
  const loaded = await loadConfig({ configFile, env, cwd, home: homedir() });
  if (!loaded.ok) return [];
  const ask = await findRunningMirror(loaded.config, TIMEOUTS);
  if (ask === undefined) return [];
  const query = new URLSearchParams({ n: String(MAX_REFS) });
  if (start !== "") query.set("q", start);
  try {
    const { body } = await ask("GET", `/api/v1/images?${query.toString()}`);
    const { images = [] } = (body ?? {}) as {
      readonly images?: readonly { readonly ref: string }[];
    };
    return images.flatMap(({ ref }) => {
      const spelled = [shortName(ref, loaded.config), ref];
      return [...new Set(start === "" ? spelled.slice(0, 1) : spelled)].filter(
        (name) => name.startsWith(start),
      );
    });
  } catch {
    return [];
  }
}

/** Returns the name that engines use: without the default registry and its `library`. */
function shortName(ref: string, { upstreams }: Config): string {
  const standard = upstreams.find(({ isDefault }) => isDefault);
  if (standard === undefined || !ref.startsWith(`${standard.name}/`)) {
    return ref;
  }
  const name = ref.slice(standard.name.length + 1);
  const [, inLibrary] = /^library\/([^/]+)$/.exec(name) ?? [];
  return standard.libraryPrefix ? (inLibrary ?? name) : name;
}
