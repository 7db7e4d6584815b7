import { ANY_DURATION, durationOf, mappingOf, textOf } from "./schema-node.ts";

/** `upstreams.<name>.freshness` */
export const FRESHNESS_SCHEMA = mappingOf(
  {
    tagTtl: durationOf("10m", {
      description:
        "The time for which a tag is answered from the cache without a request to the upstream.",
      "x-zero": "every request for a tag is revalidated",
    }),
    rules: {
      type: "array",
      items: mappingOf(
        {
          match: textOf("pattern", {
            description:
              "A pattern over `repository:tag`, or `repository` alone for all its tags: `*` stays within a path component, `**` crosses them.",
            examples: ["**:latest"],
            "x-expected":
              'a pattern over repository:tag with * and **, such as "**:latest"',
          }),
          ttl: textOf("duration", {
            description: "The tagTtl of the tags that match.",
            examples: ["1m"],
            "x-expected": ANY_DURATION,
            "x-zero": "revalidated at every request",
          }),
        },
        {
          required: ["match", "ttl"],
          "x-expected": "a mapping of match and ttl",
        },
      ),
      default: [],
      description: "Other lifetimes for some tags; the first match wins.",
      examples: [[{ match: "**:latest", ttl: "1m" }]],
      "x-expected": "a list of mappings of match and ttl",
      "x-zero": "tagTtl applies to every tag",
    },
    staleIfGone: durationOf("0s", {
      description:
        "The time for which a cached tag is still served after the upstream first answered it with 404, or without credentials with 401 or 403. Pinned images are always served.",
      "x-zero": "the tag is removed, and its digest is kept",
    }),
    staleIfError: durationOf("forever", {
      description:
        "The greatest age of a tag that is served when the upstream fails.",
      "x-zero": "the client receives the error",
    }),
    staleWhileRevalidate: durationOf("0s", {
      description:
        "The time after its lifetime for which a tag is answered immediately and revalidated in the background.",
      "x-zero": "the answer waits for the upstream",
    }),
    notFoundTtl: durationOf("30s", {
      "x-atMost": "24h",
      description:
        "The time for which the upstream's 404 is remembered, and a list of referrers or a signature's tag is answered without a request to the upstream.",
      "x-expected": "a duration of at most 24h, such as 30s",
      "x-zero": "never remembered",
    }),
  },
  {
    default: {},
    description: "Lifetimes of tags in the cache.",
    "x-expected": "a mapping",
    "x-absent": "the registry is not mirrored",
  },
);
