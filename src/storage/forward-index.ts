import { IndexAwayError, type MetadataIndex } from "./metadata-index.ts";

/** Methods without a promise. They never fail. */
const SYNCHRONOUS_METHODS: ReadonlySet<string | symbol> = new Set<
  keyof MetadataIndex
>(["recallLinkedBlob", "recallTag", "touchBlob", "touchManifest", "touchTag"]);

/**
 * Returns an index that forwards each call to the index that is open at that time. While none is
 * open, methods reject with {@link IndexAwayError}, so that pulls go directly to the upstream.
 */
export function forwardTo(
  current: () => MetadataIndex | undefined,
): MetadataIndex {
  return new Proxy({} as MetadataIndex, {
    get: (_target, name) => {
      const index = current();
      if (index === undefined) {
        return SYNCHRONOUS_METHODS.has(name)
          ? () => undefined
          : () => Promise.reject(new IndexAwayError(String(name)));
      }
      const member: unknown = Reflect.get(index, name, index);
      return typeof member === "function" ? member.bind(index) : member;
    },
  });
}
