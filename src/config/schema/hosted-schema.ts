import { FORMS } from "./forms.ts";
import { durationOf, listOf, mappingOf, textOf } from "./schema-node.ts";

const RETENTION_RULE = mappingOf(
  {
    match: textOf("pattern", {
      description:
        "The tags that the rule covers: a pattern over `repository[:tag]`, without the registry's name; `*` stays within a path component, `**` crosses them.",
      examples: ["ci/**"],
      "x-expected":
        'a pattern over repository[:tag] with * and **, such as "ci/**"',
    }),
    keepNewest: {
      type: "integer",
      minimum: 1,
      maximum: 1_000_000,
      description:
        "The number of tags of each repository that are kept, those pushed last. Tags that are derived from a digest are not counted.",
      examples: [10],
      "x-expected": "a whole number from 1 to 1000000",
      "x-absent": "no tag is kept because it is new",
    },
    keepPulledWithin: textOf("duration", {
      "x-atLeast": "1h",
      description: "A tag that was pulled or pushed within this time is kept.",
      examples: ["30d"],
      "x-expected": "a duration of at least 1h, such as 30d, or forever",
      "x-absent": "no tag is kept because it was pulled",
    }),
    keepTags: listOf(
      textOf("tagPattern", {
        "x-expected": 'a pattern over tags with *, such as "v*"',
      }),
      {
        default: [],
        maxItems: 64,
        description: "Patterns over the tag alone; a tag that matches is kept.",
        examples: [["v*", "latest"]],
        "x-expected": "a list of patterns, each once",
        "x-zero": "no tag is kept because of its name",
      },
    ),
  },
  {
    required: ["match"],
    "x-expected":
      "a mapping of match and keepNewest, keepPulledWithin or keepTags",
  },
);

const RETENTION_SCHEMA = mappingOf(
  {
    schedule: textOf("schedule", {
      default: "0 3 * * *",
      description:
        "When the rules are applied: a cron expression of five fields, in local time.",
      examples: ["0 3 * * *", "30 2 * * SUN"],
      "x-expected":
        "minute, hour, day of the month, month and day of the week, such as 0 3 * * *",
    }),
    rules: {
      type: "array",
      items: RETENTION_RULE,
      default: [],
      maxItems: 256,
      description:
        "Tags to keep; the first rule that matches a tag decides, and a tag that it does not keep is deleted. A tag that no rule matches is kept, and so is an immutable one. A tag that is derived from a digest (`sha256-…`, also with `.sig`, `.att` or `.sbom`) is kept while a hosted repository has the manifest with that digest.",
      examples: [
        [
          {
            match: "ci/**",
            keepNewest: 10,
            keepPulledWithin: "30d",
            keepTags: ["v*"],
          },
        ],
      ],
      "x-expected": "a list of mappings",
      "x-zero": "no tag is deleted",
    },
    untagged: durationOf("7d", {
      "x-atLeast": "1h",
      description:
        "The time for which a manifest is kept that no tag and no other manifest names. A tag that is derived from the digest of a manifest that no hosted repository has is deleted if it was pushed longer ago, unless it is immutable or `keepPulledWithin` or `keepTags` of its rule keeps it.",
      "x-expected": "a duration of at least 1h, such as 7d, or forever",
      "x-zero": "`forever`: always",
    }),
  },
  {
    description:
      "Deletes tags that their rule does not keep, and old manifests that no tag names.",
    "x-expected": "a mapping",
    "x-absent": "everything is kept",
  },
);

/** One entry of `hosted`. */
export const HOSTED_SCHEMA = mappingOf(
  {
    default: {
      type: "boolean",
      "x-field": "isDefault",
      default: false,
      description:
        "Names without a registry are hosted here: `docker push mirror:5000/nginx`. Docker Hub is then `docker.io/…`. At most one registry, mirrored or hosted, is the default; this one replaces the built-in default.",
      "x-expected": "true or false",
    },
    hostnames: listOf(
      textOf("host", {
        "x-expected": "a host in lower case, such as registry.corp",
      }),
      {
        default: [],
        description: "`Host` headers that select the registry.",
        examples: [["registry.corp"]],
        "x-expected": "a list of hosts, each once",
        "x-zero": "no `Host` selects it",
      },
    ),
    anonymousPush: {
      type: "string",
      enum: ["loopback", "anywhere", "none"],
      default: "loopback",
      description:
        "The clients that may push and delete while there is no `access`. `loopback`: those on this machine that no proxy forwards; a client of a container is never one of them.",
      examples: ["anywhere"],
      "x-expected": "one of loopback, anywhere, none",
    },
    immutableTags: listOf(
      textOf("pattern", {
        "x-expected":
          'a pattern over repository[:tag] with * and **, such as "**:v*"',
      }),
      {
        default: [],
        maxItems: 256,
        description:
          "Tags that can be neither moved nor deleted once they are pushed: patterns over `repository:tag`, without the registry's name; one without a tag covers all tags of the repository.",
        examples: [["**:v*", "releases/**"]],
        "x-expected": "a list of patterns, each once",
        "x-zero": "every tag can be moved and deleted",
      },
    ),
    quota: {
      type: ["integer", "string"],
      // A number has no unit; only 0 is valid without one.
      minimum: 0,
      maximum: 0,
      pattern: FORMS.quota.pattern,
      "x-form": "quota",
      default: 0,
      description:
        "The bytes that the registry may hold, each distinct digest counted once, open uploads included; a push beyond it is refused.",
      examples: ["200GiB"],
      "x-expected": "a size with a unit such as 200GiB, or 0",
      "x-zero": "unlimited",
    },
    maxManifestSize: textOf("size", {
      default: "4MiB",
      "x-field": "maxManifestBytes",
      "x-atLeast": "64KiB",
      "x-atMost": "64MiB",
      description: "The limit for one manifest; a larger one is refused.",
      examples: ["4MiB"],
      "x-expected": "a size from 64KiB to 64MiB, such as 4MiB",
    }),
    uploadExpiry: durationOf("24h", {
      "x-atLeast": "1m",
      "x-atMost": "90d",
      description:
        "An upload that received nothing for this time is dropped, with its bytes.",
      "x-expected": "a duration from 1m to 90d, such as 24h",
    }),
    retention: RETENTION_SCHEMA,
  },
  {
    type: ["object", "null"],
    description:
      "One registry; the key is its name, used like an upstream's: `mirror:5000/local/team/app`. An entry without a value has all defaults.",
    "x-expected": "a mapping",
    "x-absent": "the registry is not hosted",
  },
);
