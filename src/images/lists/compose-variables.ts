/** A text with its variables resolved, or why they cannot be. */
export type ResolvedText =
  | {
      readonly ok: true;
      readonly text: string;
      /** The variables whose default was taken. */
      readonly defaulted: readonly string[];
    }
  | { readonly ok: false; readonly reason: string };

/** Of defaults within defaults. */
const MAX_DEPTH = 16;

const NAME = /^[_a-z][_a-z0-9]*/i;
const OPERATOR = /^(?::?[-+?])?/;

/**
 * Resolves the variables of a text as Docker Compose does when no variable is set: `${X:-default}` is
 * its default, `${X:+text}` is empty, and `$$` is a dollar sign. A variable without a default is refused,
 * where Compose warns and takes an empty text: the rest would name another image.
 *
 * @see https://docs.docker.com/reference/compose-file/interpolation/
 */
export function resolveVariables(text: string): ResolvedText {
  if (!text.includes("$")) return { ok: true, text, defaulted: [] };
  const defaulted: string[] = [];
  try {
    return { ok: true, text: resolve(text, defaulted, 0), defaulted };
  } catch (error) {
    if (error instanceof VariableFault) {
      return { ok: false, reason: error.message };
    }
    throw error;
  }
}

class VariableFault extends Error {}

function resolve(text: string, defaulted: string[], depth: number): string {
  if (depth > MAX_DEPTH) {
    throw new VariableFault(
      `got defaults within defaults; expected at most ${MAX_DEPTH} levels`,
    );
  }
  let resolved = "";
  let rest = text;
  for (;;) {
    const at = rest.indexOf("$");
    if (at === -1) return resolved + rest;
    resolved += rest.slice(0, at);
    rest = rest.slice(at + 1);
    if (rest.startsWith("$")) {
      resolved += "$";
      rest = rest.slice(1);
    } else if (rest.startsWith("{")) {
      const end = closingBrace(rest);
      resolved += resolveBraced(rest.slice(1, end), defaulted, depth);
      rest = rest.slice(end + 1);
    } else {
      const name = NAME.exec(rest)?.[0];
      if (name !== undefined) throw unset(name);
      resolved += "$";
    }
  }
}

function resolveBraced(
  inner: string,
  defaulted: string[],
  depth: number,
): string {
  const name = NAME.exec(inner)?.[0] ?? "";
  const operator = OPERATOR.exec(inner.slice(name.length))?.[0] ?? "";
  const argument = inner.slice(name.length + operator.length);
  if (name === "" || (operator === "" && argument !== "")) {
    throw new VariableFault(
      `got \${${inner}}; expected \${NAME} or \${NAME:-default}`,
    );
  }
  switch (operator) {
    case "-":
    case ":-":
      defaulted.push(name);
      return resolve(argument, defaulted, depth + 1);
    case "+":
    case ":+":
      return "";
    default:
      throw unset(name);
  }
}

function unset(name: string): VariableFault {
  return new VariableFault(
    `got the variable ${name} without a default; expected the output of 'docker compose config', which resolves it`,
  );
}

/** @param text begins with a brace @returns the place of the brace that closes it */
function closingBrace(text: string): number {
  let open = 0;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "{") open += 1;
    if (text[at] === "}") open -= 1;
    if (open === 0) return at;
  }
  throw new VariableFault("got an open ${; expected a closing brace");
}
