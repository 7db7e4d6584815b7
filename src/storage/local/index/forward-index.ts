import { IndexAwayError, type MetadataIndex } from "../../metadata-index.ts";

/** Methods that answer at once, and never fail. */
const QUIET: ReadonlySet<string | symbol> = new Set<keyof MetadataIndex>([
  "recallLinkedBlob",
  "recallTag",
  "touchBlob",
  "touchManifest",
  "touchTag",
]);

/**
 * An object whose methods are those of the index in force when they are called. While there is none
 * it knows nothing: every method fails with an {@link IndexAwayError}, so that pulls pass through.
 */
export function forwardTo(
  current: () => MetadataIndex | undefined,
): MetadataIndex {
  return new Proxy({} as MetadataIndex, {
    get: (_target, name) => {
      const index = current();
      if (index === undefined) {
        return QUIET.has(name)
          ? () => undefined
          : () => Promise.reject(new IndexAwayError(String(name)));
      }
      const member: unknown = Reflect.get(index, name, index);
      return typeof member === "function" ? member.bind(index) : member;
    },
  });
}
