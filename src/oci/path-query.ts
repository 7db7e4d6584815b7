/** The query parameters of the distribution API, each with its decoded values in order. */
export interface PathQuery {
  readonly ns: readonly string[];
  readonly n: readonly string[];
  readonly last: readonly string[];
  readonly artifactType: readonly string[];
  readonly tag: readonly string[];
  readonly digest: readonly string[];
  readonly mount: readonly string[];
  readonly from: readonly string[];
  /** `digest-algorithm`. */
  readonly algorithm: readonly string[];
}

const PARAMETERS: ReadonlyMap<string, keyof PathQuery> = new Map([
  ["ns", "ns"],
  ["n", "n"],
  ["last", "last"],
  ["artifactType", "artifactType"],
  ["tag", "tag"],
  ["digest", "digest"],
  ["mount", "mount"],
  ["from", "from"],
  ["digest-algorithm", "algorithm"],
]);

/**
 * Parses the query of a request target; other parameters are ignored. A plus is not decoded to a
 * space: no value here has one, and media types are often sent with a literal `+json`.
 *
 * @returns undefined if the query is not percent-encoded UTF-8
 */
export function parsePathQuery(rawQuery: string): PathQuery | undefined {
  const values: Record<keyof PathQuery, string[]> = {
    ns: [],
    n: [],
    last: [],
    artifactType: [],
    tag: [],
    digest: [],
    mount: [],
    from: [],
    algorithm: [],
  };
  for (const pair of rawQuery.split("&")) {
    const equalsAt = pair.indexOf("=");
    const key = decode(equalsAt === -1 ? pair : pair.slice(0, equalsAt));
    const value = decode(equalsAt === -1 ? "" : pair.slice(equalsAt + 1));
    if (key === undefined || value === undefined) return undefined;
    const parameter = PARAMETERS.get(key);
    if (parameter !== undefined) values[parameter].push(value);
    // Some servers read `ns[]=` as `ns`; here it counts as a second `ns`.
    else if (key.startsWith("ns[")) values.ns.push(value, value);
  }
  return values;
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
