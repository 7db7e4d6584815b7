/**
 * Splits a command line of the documentation into words as a shell does. Understands single and double
 * quotes; a pipe, a redirection or a comment ends the command.
 */
export function shellWords(line: string): string[] {
  const words: string[] = [];
  const pattern = /(?:'[^']*'|"[^"]*"|[^\s'"])+/g;
  for (const [word] of line.matchAll(pattern)) {
    if (/^(?:[|>#&;<]|2>)/.test(word)) break;
    words.push(word.replaceAll(/'([^']*)'|"([^"]*)"/g, "$1$2"));
  }
  return words;
}
