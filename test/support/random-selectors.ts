/** Texts that are often constraints of Masterminds' semver or patterns of RE2, and tags to try them on. */
export class RandomSelectors {
  readonly #random: () => number;

  /** @param random as of `seededRandom` */
  constructor(random: () => number) {
    this.#random = random;
  }

  constraint(): string {
    let text = this.#comparison();
    for (let more = this.#below(4); more > 0; more -= 1) {
      text += this.#pick([" ", ",", ", ", "||", " || ", " - ", "-"]);
      text += this.#comparison();
    }
    return text;
  }

  pattern(): string {
    return Array.from({ length: 1 + this.#below(6) }, () =>
      this.#pick(PATTERN_PARTS),
    ).join("");
  }

  /** Tags without repetition, most of them loose versions. */
  tags(count: number): string[] {
    const versions = Array.from({ length: count }, () =>
      this.#version(["0", "1", "2", "3", "10", "11", "12", "01", "007"]),
    );
    return [...new Set([...versions, ...OTHER_TAGS])];
  }

  #comparison(): string {
    const space = (): string => this.#pick(["", "", " ", "  "]);
    const numbers = ["0", "1", "2", "3", "10", "11", "12", "01", "x", "X", "*"];
    return `${space()}${this.#pick(OPERATORS)}${space()}${this.#version(numbers)}${space()}`;
  }

  #version(numbers: readonly string[]): string {
    const parts = Array.from({ length: 1 + this.#below(3) }, () =>
      this.#pick(numbers),
    );
    return `${this.#pick(["", "", "v"])}${parts.join(".")}${this.#pick(PRERELEASES)}`;
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[this.#below(choices.length)] as T;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
}

const OPERATORS = " = != > < >= => <= =< ~ ~> ^".split(" ");
const PRERELEASES =
  "    -alpha -0 -rc.1 -rc.2 -rc.10 -1 -01 -a.b.c -alpine3.18 -- -1.x".split(
    " ",
  );
const PATTERN_PARTS =
  "a 1 \\. . [0-9] [^a] [[:digit:]] \\d \\D \\w \\W \\b ^ $ \\A \\z (a|1) (?i)A * + ? {2} *? | ( ) [a- \\pL \\x61 \\- - (?=a) \\1".split(
    " ",
  );
const OTHER_TAGS =
  "latest 1-alpine 1.2.3.4 a A _ 1. v 2024.01.02 aa11 a.1-b_2".split(" ");
