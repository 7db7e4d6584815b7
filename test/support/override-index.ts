import type { MetadataIndex } from "../../src/storage/metadata-index.ts";

/** Returns an index with some methods replaced. */
export function overrideIndex(
  index: MetadataIndex,
  overrides: Partial<MetadataIndex>,
): MetadataIndex {
  return new Proxy(index, {
    get: (_target, name) => {
      const override: unknown = Reflect.get(overrides, name);
      if (override !== undefined) return override;
      const member: unknown = Reflect.get(index, name, index);
      return typeof member === "function" ? member.bind(index) : member;
    },
  });
}
