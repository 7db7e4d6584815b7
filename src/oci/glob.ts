/** Returns whether a pattern covers a repository, or the tag of it if one is given. */
export type PatternMatcher = (
  repository: string,
  tag: string | undefined,
) => boolean;

/**
 * Compiles a pattern of the configuration, `repository[:tag]`:
 *
 * - `*` stands for any text within one path component, including none;
 * - `**` stands for any text across components; `**` and a slash at the start of a component also
 *   match no component at all, so that `**` + `/nginx` covers `nginx`;
 * - every other character stands for itself, case-sensitively;
 * - a pattern without a tag covers every tag of the repository, and digests; a pattern with a tag
 *   covers matching tags only, and never a digest.
 *
 * | pattern | covers | does not |
 * |---|---|---|
 * | `library/*` | `library/alpine:3`, `library/alpine@sha256:…` | `library/a/b:3` |
 * | `team/**` | `team/a/b:1` | `team:1` |
 * | `**:latest` | `library/alpine:latest` | `library/alpine:3` |
 * | `**:*.*.*` | `library/alpine:3.20.1`, `a:1.2.3-rc.1` | `library/alpine:3.20` |
 *
 * A match takes at most (characters of the pattern) x (characters of the text) steps.
 */
export function compilePattern(text: string): PatternMatcher {
  const { repository, tag } = splitPattern(text);
  const matchesRepository = compileGlob(repository);
  if (tag === undefined) return (name) => matchesRepository(name);
  const matchesTag = compileGlob(tag);
  return (name, nameTag) =>
    nameTag !== undefined && matchesTag(nameTag) && matchesRepository(name);
}

/** Compiles the repository part of a pattern; its tag is ignored. */
export function compileRepositoryPattern(text: string): PatternMatcher {
  const matches = compileGlob(splitPattern(text).repository);
  return (name) => matches(name);
}

/** A colon before a slash separates a registry's port. */
function splitPattern(text: string): {
  repository: string;
  tag: string | undefined;
} {
  const colonAt = text.lastIndexOf(":");
  return colonAt === -1 || text.includes("/", colonAt)
    ? { repository: text, tag: undefined }
    : { repository: text.slice(0, colonAt), tag: text.slice(colonAt + 1) };
}

type Step =
  | { readonly kind: "char"; readonly char: string }
  /** `*` */
  | { readonly kind: "within" }
  /** `**` */
  | { readonly kind: "across" }
  /** `**` and a slash, at the start of a component. */
  | { readonly kind: "components" };

function parseSteps(glob: string): readonly Step[] {
  const steps: Step[] = [];
  for (let at = 0; at < glob.length; at++) {
    const char = glob.charAt(at);
    if (char !== "*") {
      steps.push({ kind: "char", char });
    } else if (glob[at + 1] !== "*") {
      steps.push({ kind: "within" });
    } else {
      const isAtStart = at === 0 || glob[at - 1] === "/";
      while (glob[at + 1] === "*") at++;
      if (!isAtStart || glob[at + 1] !== "/") {
        steps.push({ kind: "across" });
      } else {
        at++;
        // A repeated wildcard matches the same as a single one.
        if (steps.at(-1)?.kind !== "components") {
          steps.push({ kind: "components" });
        }
      }
    }
  }
  return steps;
}

/**
 * Runs all steps over the text in parallel, as an automaton does. A regular expression with many
 * `[^/]*` would backtrack, in time exponential in their number.
 */
function compileGlob(glob: string): (text: string) => boolean {
  const steps = parseSteps(glob);
  return (text) => {
    let states = new Set<number>();
    enter(steps, states, 0);
    for (let at = 0; at < text.length; at++) {
      const char = text.charAt(at);
      const next = new Set<number>();
      for (const state of states) advance(steps, next, state, char);
      states = next;
    }
    return states.has(steps.length);
  };
}

/** Every step except a character may be skipped; at most two of these are adjacent. */
function enter(
  steps: readonly Step[],
  states: Set<number>,
  first: number,
): void {
  let state = first;
  states.add(state);
  for (;;) {
    const step = steps[state];
    if (step === undefined || step.kind === "char") return;
    state++;
    states.add(state);
  }
}

function advance(
  steps: readonly Step[],
  next: Set<number>,
  state: number,
  char: string,
): void {
  const step = steps[state];
  switch (step?.kind) {
    case "char":
      if (step.char === char) enter(steps, next, state + 1);
      return;
    case "within":
      if (char !== "/") enter(steps, next, state);
      return;
    case "across":
      enter(steps, next, state);
      return;
    case "components":
      // May be skipped only at the start and after a slash.
      next.add(state);
      if (char === "/") enter(steps, next, state + 1);
      return;
    case undefined:
      return;
  }
}
