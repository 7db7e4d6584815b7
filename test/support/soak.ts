/**
 * How much of a long proof is done: all of it in `npm run soak`, a part of it else.
 *
 * @param part what is done without `ENTREPOT_SOAK`
 */
export function soakFactor(part: number): number {
  return process.env["ENTREPOT_SOAK"] === "1" ? 1 : part;
}
