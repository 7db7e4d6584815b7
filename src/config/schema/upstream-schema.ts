import { CREDENTIAL_SCHEMA } from "./credential-schema.ts";
import { FORMS } from "./forms.ts";
import { FRESHNESS_SCHEMA } from "./freshness-schema.ts";
import { fileOf, listOf, mappingOf, textOf, timeoutOf } from "./schema-node.ts";

/** One entry of `upstreams`. */
export const UPSTREAM_SCHEMA = mappingOf(
  {
    default: {
      type: "boolean",
      "x-field": "isDefault",
      default: false,
      description:
        "Requests that name no registry use this upstream; at most one upstream is the default.",
      "x-expected": "true or false",
    },
    endpoints: listOf(
      textOf("endpoint", {
        "x-expected": "an absolute http or https URL, such as https://quay.io",
      }),
      {
        minItems: 1,
        maxItems: 16,
        description:
          "Base URLs of the registry, tried in order, without `/v2`. A path is inserted between `/v2/` and the repository.",
        examples: [["https://harbor.corp/hub"]],
        "x-expected": "a list of one to sixteen URLs, each once",
        "x-absent":
          "`https://` and the upstream's name; for docker.io `https://registry-1.docker.io`",
      },
    ),
    aliases: listOf(
      textOf("registry", {
        "x-expected":
          "a name in lower case, such as hub or registry.corp:5000, and not v2",
      }),
      {
        description:
          "Other names that select the upstream: in `?ns=`, before `/v2/` or as first path component.",
        examples: [["hub"]],
        "x-expected": "a list of names, each once",
        "x-zero": "the name alone selects it",
        "x-absent":
          "none; for docker.io `index.docker.io` and `registry-1.docker.io`",
      },
    ),
    hostnames: listOf(
      textOf("host", {
        "x-expected": "a host in lower case, such as hub.mirror.internal",
      }),
      {
        default: [],
        description: "`Host` headers that select the upstream.",
        examples: [["hub.mirror.internal"]],
        "x-expected": "a list of hosts, each once",
        "x-zero": "no `Host` selects it",
      },
    ),
    libraryPrefix: {
      type: "boolean",
      description:
        "Prefixes a name of one component with `library/`: `alpine` is `library/alpine`.",
      examples: [true],
      "x-expected": "true or false",
      "x-absent": "true for docker.io, by name or alias; otherwise false",
    },
    credentials: {
      ...CREDENTIAL_SCHEMA,
      type: ["object", "array"],
      items: CREDENTIAL_SCHEMA,
      maxItems: 64,
      description:
        "The mirror's own account at the upstream: one mapping, or a list used as a pool. Requires `access`.",
      examples: [{ username: "acme", passwordFile: "/run/secrets/hub" }],
      "x-expected":
        "a mapping of username and password or passwordFile, of dockerConfigFile, or of helper; or a list of these",
      "x-zero": "anonymous",
      "x-absent": "anonymous",
    },
    access: {
      type: "string",
      enum: ["shared"],
      description:
        "The clients that may read what the mirror's credentials fetched. `shared`: every client of the mirror.",
      examples: ["shared"],
      "x-expected": "shared; the value caller is not available yet",
      "x-absent": "shared; a fault beside credentials",
    },
    freshness: FRESHNESS_SCHEMA,
    allow: listOf(
      textOf("pattern", {
        "x-expected":
          'a pattern over repository[:tag] with * and **, such as "library/*"',
      }),
      {
        default: [],
        description:
          "What may be pulled: patterns over `repository[:tag]`; `*` stays within a path component, `**` crosses them. One without a tag covers the repository, digests included; a digest passes when any pattern's repository matches. Everything else is answered with 404.",
        examples: [["library/*", "team/**"]],
        "x-expected": "a list of patterns, each once",
        "x-zero": "everything may be pulled",
      },
    ),
    deny: listOf(
      textOf("pattern", {
        "x-expected":
          'a pattern over repository[:tag] with * and **, such as "**:latest"',
      }),
      {
        default: [],
        description:
          "What may not be pulled, although `allow` covers it. A digest is caught only by a pattern without a tag.",
        examples: [["**:latest"]],
        "x-expected": "a list of patterns, each once",
        "x-zero": "nothing is refused except what `allow` does not cover",
      },
    ),
    redirectHosts: listOf(
      textOf("redirectHost", {
        "x-expected":
          "a host, a host glob such as *.s3.corp, or a CIDR such as 10.0.0.0/8",
      }),
      {
        default: [],
        description:
          "Targets of redirects and token realms that are allowed although the address is private or loopback: host globs (`*` within a label, `**` across them) or CIDRs. Link-local and metadata addresses need a CIDR. If the endpoint itself is on such a network, that network is allowed. Not checked if a proxy is used.",
        examples: [["minio.corp", "10.20.0.0/16"]],
        "x-expected": "a list of host globs or CIDRs, each once",
        "x-zero": "public addresses and the endpoint's own network only",
      },
    ),
    tokenRealms: listOf(
      textOf("host", {
        "x-expected": "a host in lower case, such as auth.corp",
      }),
      {
        default: [],
        description:
          "Hosts of token servers that may receive the credentials, in addition to the endpoint's own domain.",
        examples: [["auth.corp"]],
        "x-expected": "a list of hosts, each once",
        "x-zero": "the endpoint's own domain only",
      },
    ),
    concurrency: {
      type: "integer",
      minimum: 0,
      maximum: 1024,
      default: 0,
      description:
        "Connections for blobs per endpoint; further downloads wait in order of arrival. Lists have 8 connections of their own; manifests and tokens are unlimited.",
      examples: [32],
      "x-expected": "a whole number from 0 to 1024",
      "x-zero": "unlimited",
    },
    bandwidth: {
      type: ["integer", "string"],
      // A number has no unit; only 0 is valid without one.
      minimum: 0,
      maximum: 0,
      pattern: FORMS.rate.pattern,
      "x-form": "rate",
      default: 0,
      description:
        "Bytes per second of blobs from the upstream, for all downloads together.",
      examples: ["10MiB"],
      "x-expected": "a size per second such as 10MiB, or 0",
      "x-zero": "unlimited",
    },
    connectTimeout: timeoutOf("5s", "18s", {
      description: "The longest time to connect, TLS included.",
    }),
    headersTimeout: timeoutOf("10s", "18s", {
      description:
        "The longest time until the upstream begins its response. Engines receive a response within 18 s in any case.",
    }),
    idleTimeout: timeoutOf("15s", "1h", {
      description:
        "A download that receives no byte for this time is aborted and resumed.",
    }),
    proxy: textOf("proxy", {
      description:
        "The forward proxy for all requests of this upstream, redirects and token servers included; `none` for no proxy, even if the environment names one.",
      examples: ["http://proxy.corp:3128"],
      "x-expected": "an http or https URL without a path, or none",
      "x-zero": "an empty text counts as absent",
      "x-absent":
        "HTTPS_PROXY or HTTP_PROXY of the environment, except for hosts in NO_PROXY",
      "x-secret": true,
    }),
    tls: mappingOf(
      {
        caFile: fileOf({
          description:
            "PEM certificates of authorities that are trusted in addition to those of Node.js.",
          examples: ["/etc/entrepot/ca.crt"],
          "x-expected": "the path of a PEM file",
          "x-absent": "only the authorities of Node.js",
        }),
        certificateFile: fileOf({
          description:
            "PEM certificate, with its chain, that the mirror presents to the endpoint and to no other host.",
          examples: ["/etc/entrepot/client.crt"],
          "x-expected": "the path of a PEM file",
          "x-absent": "no client certificate; written together with keyFile",
        }),
        keyFile: fileOf({
          description:
            "PEM key of certificateFile, without a passphrase. Must have mode 0600 or 0640: rejected if every user of the machine may read it.",
          examples: ["/etc/entrepot/client.key"],
          "x-expected": "the path of a PEM file",
          "x-absent":
            "no client certificate; written together with certificateFile",
        }),
        insecureSkipVerify: {
          type: "boolean",
          default: false,
          description:
            "Disables the check of the upstream's certificate: an attacker on the network path can read credentials and answer as the upstream. Causes a warning at every start.",
          "x-expected": "true or false",
        },
      },
      {
        default: {},
        description: "TLS of connections to the upstream.",
        "x-expected": "a mapping",
      },
    ),
  },
  {
    type: ["object", "null"],
    description:
      "One registry; the key is its name as in an image reference, such as `docker.io` or `registry.corp:5000`. An entry without a value has all defaults.",
    "x-expected": "a mapping",
    "x-absent": "the registry is not mirrored",
  },
);
