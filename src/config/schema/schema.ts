import { ACCESS_SCHEMA } from "./access-schema.ts";
import {
  AUDIT_SCHEMA,
  LIMITS_SCHEMA,
  OPERATOR_TOKEN_FILE_SCHEMA,
  TRUSTED_PROXIES_SCHEMA,
} from "./hardening-schema.ts";
import { HOSTED_SCHEMA } from "./hosted-schema.ts";
import { NOTIFICATION_SCHEMA } from "./notification-schema.ts";
import { amountOf, listOf, mappingOf, textOf } from "./schema-node.ts";
import { SERVER_TLS_SCHEMA } from "./server-tls-schema.ts";
import { UPSTREAM_SCHEMA } from "./upstream-schema.ts";
import { WARM_SCHEMA } from "./warm-schema.ts";
import { WELL_KNOWN_UPSTREAMS } from "./well-known-upstreams.ts";

const LISTEN_ADDRESS =
  'HOST:PORT, such as 127.0.0.1:5000 or, in quotes, "[::1]:5000"';

/**
 * The single description of the configuration. Validation, defaults, types, documentation
 * (`config/README.md`) and the published JSON Schema (`config/entrepot.schema.json`) are derived from
 * it. Keys of planned features are not in it, so they are unknown keys.
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
      description: "The address of the registry API, or a list of addresses.",
      examples: ["0.0.0.0:5000", ["127.0.0.1:5000", "[::1]:5000"]],
      "x-expected": `${LISTEN_ADDRESS}, or a list of these`,
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
            "The address of `/metrics`, `/healthz`, `/readyz` and `/api/v1`.",
          examples: ["0.0.0.0:5001", false],
          "x-expected":
            'HOST:PORT, such as 127.0.0.1:5001 or, in quotes, "[::1]:5001", or false',
          "x-zero": "`false` disables it; port 0 is any free port",
        }),
        tokenFile: OPERATOR_TOKEN_FILE_SCHEMA,
      },
      {
        default: {},
        description: "The listener for operators.",
        "x-expected": "a mapping",
      },
    ),
    storage: mappingOf(
      {
        root: {
          type: "string",
          minLength: 1,
          default: "./data",
          description: "The folder of blobs and index.",
          examples: ["/var/lib/entrepot"],
          "x-expected": "the path of a folder",
        },
      },
      {
        default: {},
        description: "The location of the cache.",
        "x-expected": "a mapping",
      },
    ),
    eviction: mappingOf(
      {
        maxSize: amountOf({
          default: "80%",
          description:
            "The limit for all blobs together; above it the images that were pulled longest ago are evicted.",
          examples: ["200GiB", "80%"],
          "x-expected":
            "a size with a unit such as 200GiB, a share of the file system such as 80%, or 0",
          "x-zero": "0 keeps nothing that is not pinned or kept by a pattern",
        }),
        minFree: amountOf({
          default: "5%",
          description:
            "The space to leave free on the file system, even if other programs fill it.",
          examples: ["10GiB", "5%"],
          "x-expected":
            "a size with a unit such as 10GiB, a share of the file system such as 5%, or 0",
          "x-zero": "0 lets the disk fill up to `maxSize`",
        }),
        maxIdle: textOf("duration", {
          default: "90d",
          description:
            "An image that was not pulled for this time is evicted, even if there is space.",
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
              "Images that are never evicted: globs over `upstream/repository[:tag]`; without a tag the whole repository.",
            examples: [["docker.io/library/alpine:*", "quay.io/team/**"]],
            "x-expected": "a list of patterns",
            "x-zero": "only what is pinned is kept",
          },
        ),
      },
      {
        default: {},
        description: "Limits of the cache's size and age.",
        "x-expected": "a mapping",
      },
    ),
    scrub: mappingOf(
      {
        background: textOf("dailyShare", {
          "x-field": "dailyShare",
          default: "1%",
          description:
            "The share of all bytes that is compared with the blobs' digests each day; damaged blobs are fetched again.",
          examples: ["1%", "5%", "off"],
          "x-expected": "a share such as 1%, or off",
          "x-zero": "`off`: no background scrub",
        }),
        onRead: textOf("durationOrOff", {
          default: "7d",
          description:
            "A blob that is pulled and was not compared with its digest for this time is compared in the background; damaged blobs are fetched again. If a client pulls the same whole blob twice within 2 minutes, it is compared before its last bytes are sent, regardless of this key.",
          examples: ["7d", "24h", "off"],
          "x-expected": "a duration with a unit, such as 7d, or off",
          "x-zero": "`off`: no blob is compared because of its age",
        }),
      },
      {
        default: {},
        description: "Verification of stored blobs.",
        "x-expected": "a mapping",
      },
    ),
    offline: {
      type: "boolean",
      default: false,
      description:
        "Contacts no upstream; content that is not cached is answered with 404.",
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
        'The mirrored registries, by name. A name with `*`, such as `"*"` or `"*.corp"`, is a template: a registry that a request names (in `?ns=`, in a path before `/v2/` or, without a port, as first component) and that has no entry of its own is mirrored with the settings of the most specific template that it matches, at `https://` and its name if its address is public or `redirectHosts` names it. A template has no `default`, `endpoints`, `aliases`, `hostnames`, `credentials`, `tokenRealms`, client certificate or `tls.insecureSkipVerify`.',
      "x-expected": "a mapping of registries' names",
      "x-zero": "an empty mapping mirrors nothing",
      "x-absent": `${WELL_KNOWN_UPSTREAMS.join(", ")}; the first is the default upstream`,
    },
    hosted: {
      type: "object",
      propertyNames: textOf("hostedName", {
        "x-expected":
          "a component of a repository's name in lower case, such as local, and not v2",
      }),
      additionalProperties: HOSTED_SCHEMA,
      description:
        "Registries whose repositories live here: pushed to this server, never mirrored. A name is not the name or an alias of an upstream.",
      "x-expected": "a mapping of names",
      "x-zero": "an empty mapping hosts nothing: every push is refused",
      "x-absent":
        "one registry, `local`, with every default below; none if an upstream has that name or alias",
    },
    notifications: {
      type: "array",
      items: NOTIFICATION_SCHEMA,
      default: [],
      maxItems: 16,
      description: "Webhooks that receive events of hosted repositories.",
      examples: [[{ url: "https://hooks.corp/entrepot" }]],
      "x-expected": "a list of mappings of url, headersFile and events",
      "x-zero": "no event is sent",
    },
    warm: WARM_SCHEMA,
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
          description: "The lowest level of lines in the log.",
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
