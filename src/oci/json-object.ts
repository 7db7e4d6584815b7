/**
 * Returns the fields of a JSON object; undefined if the text is not JSON or not an object.
 *
 * A map, so that a field named `__proto__` or `toString` is only a field.
 */
export function parseJsonObject(
  text: string,
): ReadonlyMap<string, unknown> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? new Map(Object.entries(value))
    : undefined;
}
