import { ACCESS_SCHEMA } from "./access-schema.ts";
import {
  AUDIT_SCHEMA,
  LIMITS_SCHEMA,
  OPERATOR_TOKEN_FILE_SCHEMA,
  TRUSTED_PROXIES_SCHEMA,
} from "./hardening-schema.ts";
import { amountOf, listOf, mappingOf, textOf } from "./schema-node.ts";
import { SERVER_TLS_SCHEMA } from "./server-tls-schema.ts";
import { UPSTREAM_SCHEMA } from "./upstream-schema.ts";
import { WELL_KNOWN_UPSTREAMS } from "./well-known-upstreams.ts";

const LISTEN_ADDRESS =
  'HOST:PORT, such as 127.0.0.1:5000 or, in quotes, "[::1]:5000"';

/**
 * The one description of the configuration: validation, defaults, documentation (`config/README.md`)
 * and the published JSON Schema (`config/entrepot.schema.json`) all come from it.
 * A key that nothing honours yet is not in it, so it is an unknown key.
 */
export const CONFIG_SCHEMA = mappingOf(
  {
    listen: textOf("listen", {
      type: ["string", "array"],
      items: textOf("listen", { "x-expected": LISTEN_ADDRESS }),
      minItems: 1,
      maxItems: 16,
      uniqueItems: true,
      default: "127.0.0.1:5000",
      description: "Where the registry API listens: one address or a list.",
      examples: ["0.0.0.0:5000", ["127.0.0.1:5000", "[::1]:5000"]],
      "x-expected": `${LISTEN_ADDRESS}, or a list of such`,
      "x-zero": "port 0 is any free port",
    }),
    tls: SERVER_TLS_SCHEMA,
    operator: mappingOf(
      {
        listen: textOf("listen", {
          type: ["string", "boolean"],
          not: { enum: [true] },
          default: "127.0.0.1:5001",
          description:
            "Where `/metrics`, `/healthz` and `/readyz` are answered.",
          examples: ["0.0.0.0:5001", false],
          "x-expected":
            'HOST:PORT, such as 127.0.0.1:5001 or, in quotes, "[::1]:5001", or false',
          "x-zero": "`false` switches it off; port 0 is any free port",
        }),
        tokenFile: OPERATOR_TOKEN_FILE_SCHEMA,
      },
      {
        default: {},
        description: "The operator's own listener.",
        "x-expected": "a mapping",
      },
    ),
    storage: mappingOf(
      {
        root: {
          type: "string",
          minLength: 1,
          default: "./data",
          description: "The folder that holds blobs and index.",
          examples: ["/var/lib/entrepot"],
          "x-expected": "the path of a folder",
        },
      },
      {
        default: {},
        description: "Where the cache is kept.",
        "x-expected": "a mapping",
      },
    ),
    eviction: mappingOf(
      {
        maxSize: amountOf({
          default: "80%",
          description:
            "What the blobs may take together; then the images that were pulled longest ago go.",
          examples: ["200GiB", "80%"],
          "x-expected":
            "a size with a unit such as 200GiB, a share of the file system such as 80%, or 0",
          "x-zero": "0 keeps nothing that is not pinned or kept by a pattern",
        }),
        minFree: amountOf({
          default: "5%",
          description:
            "What is left free on the file system, whoever fills it.",
          examples: ["10GiB", "5%"],
          "x-expected":
            "a size with a unit such as 10GiB, a share of the file system such as 5%, or 0",
          "x-zero": "0 lets the disk fill up to `maxSize`",
        }),
        maxIdle: textOf("duration", {
          default: "90d",
          description:
            "An image that was not pulled for so long goes, even with room.",
          examples: ["30d", "forever"],
          "x-expected": "a duration with a unit, such as 90d, or forever",
          "x-atLeast": "1h",
          "x-zero": "`forever`: never",
        }),
        keep: listOf(
          textOf("imagePattern", {
            "x-expected":
              "a pattern such as docker.io/library/alpine:* or quay.io/team/**",
          }),
          {
            default: [],
            maxItems: 1_000,
            description:
              "Images that never go by themselves: globs over `upstream/repository[:tag]`; without a tag the whole repository.",
            examples: [["docker.io/library/alpine:*", "quay.io/team/**"]],
            "x-expected": "a list of patterns",
            "x-zero": "only what is pinned is kept",
          },
        ),
      },
      {
        default: {},
        description: "How much is kept, and what goes first.",
        "x-expected": "a mapping",
      },
    ),
    scrub: mappingOf(
      {
        background: textOf("dailyShare", {
          "x-field": "dailyShare",
          default: "1%",
          description:
            "How much of the blobs' bytes is read and compared with their digests each day; what is damaged is fetched again.",
          examples: ["1%", "5%", "off"],
          "x-expected": "a share such as 1%, or off",
          "x-zero": "`off`: nothing is read unasked",
        }),
        onRead: textOf("durationOrOff", {
          default: "7d",
          description:
            "A blob that is pulled and was last compared with its digest longer ago is compared again in the background; what is damaged is fetched again. A client that wants the same whole blob twice within 2 minutes has it compared before it gets the end of it, whatever stands here.",
          examples: ["7d", "24h", "off"],
          "x-expected": "a duration with a unit, such as 7d, or off",
          "x-zero": "`off`: no blob is compared because it is old",
        }),
      },
      {
        default: {},
        description: "What is verified again.",
        "x-expected": "a mapping",
      },
    ),
    offline: {
      type: "boolean",
      default: false,
      description:
        "No upstream is ever dialled; what is not in the cache is answered 404.",
      "x-expected": "true or false",
    },
    upstreams: {
      type: "object",
      propertyNames: textOf("registryOrTemplate", {
        "x-expected":
          "a registry's name in lower case, such as quay.io or registry.corp:5000, and not v2",
      }),
      additionalProperties: UPSTREAM_SCHEMA,
      description:
        'The registries that are mirrored, by their names. A name with `*`, such as `"*"` or `"*.corp"`, is a template: a registry that a request names (in `?ns=`, in a path before `/v2/` or, without a port, as first component) and that has no entry of its own is mirrored with the settings of the most specific template that it matches, at `https://` and its name, if its address is public or `redirectHosts` names it. A template has no `default`, `endpoints`, `aliases`, `hostnames`, `credentials`, `tokenRealms`, client certificate or `tls.insecureSkipVerify`.',
      "x-expected": "a mapping of registries' names",
      "x-zero": "an empty mapping mirrors nothing",
      "x-absent": `${WELL_KNOWN_UPSTREAMS.join(", ")}; the first is the default upstream`,
    },
    access: ACCESS_SCHEMA,
    trustedProxies: TRUSTED_PROXIES_SCHEMA,
    limits: LIMITS_SCHEMA,
    audit: AUDIT_SCHEMA,
    log: mappingOf(
      {
        level: {
          type: "string",
          enum: ["trace", "debug", "info", "warn", "error", "fatal"],
          default: "info",
          description: "Lines below this level are not written.",
          "x-expected": "one of trace, debug, info, warn, error, fatal",
        },
        format: {
          type: "string",
          enum: ["json", "pretty"],
          default: "json",
          description: "`json` for machines, `pretty` for a terminal.",
          "x-expected": "one of json, pretty",
        },
      },
      { default: {}, description: "The log.", "x-expected": "a mapping" },
    ),
  },
  { description: "Entrepot's configuration.", "x-expected": "a mapping" },
);
