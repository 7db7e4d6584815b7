import { ANY_DURATION, durationOf, mappingOf, textOf } from "./schema-node.ts";

/** `upstreams.<name>.freshness` */
export const FRESHNESS_SCHEMA = mappingOf(
  {
    tagTtl: durationOf("10m", {
      description:
        "For so long a tag is answered from the cache without asking the upstream.",
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
      "x-zero": "tagTtl holds for every tag",
    },
    staleIfGone: durationOf("0s", {
      description:
        "For so long from the first such answer a cached tag is served that the upstream answers with 404, or without credentials with 401 or 403. Pinned images are served in any case.",
      "x-zero": "it is dropped, and its digest kept",
    }),
    staleIfError: durationOf("forever", {
      description:
        "How old a tag may be to be answered when the upstream fails.",
      "x-zero": "an error is answered as an error",
    }),
    staleWhileRevalidate: durationOf("0s", {
      description:
        "For so long after its lifetime a tag is answered at once and revalidated behind the answer.",
      "x-zero": "the answer waits for the upstream",
    }),
    notFoundTtl: durationOf("30s", {
      "x-atMost": "24h",
      description:
        "For so long the upstream's 404 is remembered, and a list of referrers or a signature's tag is answered unasked.",
      "x-expected": "a duration of at most 24h, such as 30s",
      "x-zero": "never remembered",
    }),
  },
  {
    default: {},
    description: "How old an answer about a tag may be.",
    "x-expected": "a mapping",
    "x-absent": "the registry is not mirrored",
  },
);
