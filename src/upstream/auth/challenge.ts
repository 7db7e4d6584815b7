/** One challenge of a `WWW-Authenticate` header. */
export interface Challenge {
  /** In lower case, for example `bearer`. */
  readonly scheme: string;
  /** Names in lower case, values unquoted; the first of several values of a name counts. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Far more than any registry sends; a longer header is hostile and is cut. */
const MAX_CHALLENGES = 16;
const MAX_PARAMETERS = 32;

const SEPARATORS = /[\s,]*/y;
const WHITESPACE = /[ \t]*/y;
const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const QUOTED = /"((?:[^"\\]|\\[^])*)(?:"|\\?$)/y;
/** Accepts more than an RFC 9110 token, because registries send realms unquoted: `realm=https://host/token`. */
const UNQUOTED = /[^\s,"]*/y;

/**
 * Parses `WWW-Authenticate`: several challenges in one header, quoted and unquoted values, commas
 * in quotes, any case. Never throws; invalid parts are left out.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let position = 0;
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = position;
    const match = pattern.exec(header);
    if (match === null) return undefined;
    position = pattern.lastIndex;
    return match;
  };

  while (position < header.length) {
    take(SEPARATORS);
    const name = take(TOKEN)?.[0].toLowerCase();
    if (name === undefined) {
      position += 1;
      continue;
    }
    take(WHITESPACE);
    if (header[position] !== "=") {
      if (challenges.length === MAX_CHALLENGES) break;
      challenges.push({ scheme: name, parameters: new Map() });
      continue;
    }
    position += 1;
    take(WHITESPACE);
    const quoted = take(QUOTED)?.[1]?.replaceAll(/\\([^])/g, "$1");
    const value = quoted ?? take(UNQUOTED)?.[0] ?? "";
    const parameters = challenges.at(-1)?.parameters;
    if (
      parameters !== undefined &&
      parameters.size < MAX_PARAMETERS &&
      !parameters.has(name)
    ) {
      parameters.set(name, value);
    }
  }
  return challenges;
}
