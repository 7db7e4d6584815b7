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
        "Requests that name no registry go here; at most one upstream is the default.",
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
          "Base URLs of the registry, tried in order, without `/v2`. A path goes between `/v2/` and the repository.",
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
        "A name of one component gets `library/` before it: `alpine` is `library/alpine`.",
      examples: [true],
      "x-expected": "true or false",
      "x-absent": "true for docker.io, by name or alias; else false",
    },
    credentials: {
      ...CREDENTIAL_SCHEMA,
      type: ["object", "array"],
      items: CREDENTIAL_SCHEMA,
      maxItems: 64,
      description:
        "The mirror's own account at the upstream: one mapping, or a list used as a pool. `access` must be written out beside it.",
      examples: [{ username: "acme", passwordFile: "/run/secrets/hub" }],
      "x-expected":
        "a mapping of username and password or passwordFile, of dockerConfigFile, or of helper; or a list of such",
      "x-zero": "anonymous",
      "x-absent": "anonymous",
    },
    access: {
      type: "string",
      enum: ["shared"],
      description:
        "Who may read what the mirror's credentials fetched. `shared`: whoever may use the mirror.",
      examples: ["shared"],
      "x-expected": "shared; the value caller is not available yet",
      "x-absent": "shared; refused where there are credentials",
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
          "What may be pulled: patterns over `repository[:tag]`; `*` stays within a path component, `**` crosses them. One without a tag covers the repository, digests included; a digest passes when any pattern's repository matches. Everything else is answered 404.",
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
        "x-zero": "nothing is refused beside what `allow` leaves out",
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
          "Where redirects and token realms may lead although the address is private or loopback: host globs (`*` within a label, `**` across them) or CIDRs. Link-local and metadata addresses need a CIDR. Where the endpoint itself is on such a network, that network is allowed as it is. Not judged behind a proxy.",
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
          "Hosts of token servers that may be given the credentials, beside the endpoint's own domain.",
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
        "Connections for blobs per endpoint; more downloads wait in the order they came. Lists have 8 of their own; manifests and tokens are unlimited.",
      examples: [32],
      "x-expected": "a whole number from 0 to 1024",
      "x-zero": "unlimited",
    },
    bandwidth: {
      type: ["integer", "string"],
      // A number has no unit; only 0 needs none.
      minimum: 0,
      maximum: 0,
      pattern: FORMS.rate.pattern,
      "x-form": "rate",
      default: 0,
      description:
        "Bytes per second of blobs from the upstream, all downloads together.",
      examples: ["10MiB"],
      "x-expected": "a size per second such as 10MiB, or 0",
      "x-zero": "unlimited",
    },
    connectTimeout: timeoutOf("5s", "18s", {
      description: "For so long a connection may take, TLS included.",
    }),
    headersTimeout: timeoutOf("10s", "18s", {
      description:
        "For so long the upstream may take to begin its answer. Engines are answered within 18 s whatever the upstream does.",
    }),
    idleTimeout: timeoutOf("15s", "1h", {
      description:
        "When no byte came for so long the download is broken off and resumed.",
    }),
    proxy: textOf("proxy", {
      description:
        "The forward proxy for all requests of this upstream, redirects and token servers included; `none` for none although the environment names one.",
      examples: ["http://proxy.corp:3128"],
      "x-expected": "an http or https URL without a path, or none",
      "x-zero": "an empty text is as absent",
      "x-absent":
        "HTTPS_PROXY or HTTP_PROXY of the environment, but for hosts in NO_PROXY",
      "x-secret": true,
    }),
    tls: mappingOf(
      {
        caFile: fileOf({
          description:
            "PEM certificates of authorities that are believed beside those that Node.js believes.",
          examples: ["/etc/entrepot/ca.crt"],
          "x-expected": "the path of a PEM file",
          "x-absent": "those that Node.js believes",
        }),
        certificateFile: fileOf({
          description:
            "PEM certificate, with its chain, that the endpoint is shown; never shown to other hosts.",
          examples: ["/etc/entrepot/client.crt"],
          "x-expected": "the path of a PEM file",
          "x-absent": "no client certificate; written together with keyFile",
        }),
        keyFile: fileOf({
          description:
            "PEM key of certificateFile, without a pass phrase. Mode 0600 or 0640: refused where everybody on the machine may read it.",
          examples: ["/etc/entrepot/client.key"],
          "x-expected": "the path of a PEM file",
          "x-absent":
            "no client certificate; written together with certificateFile",
        }),
        insecureSkipVerify: {
          type: "boolean",
          default: false,
          description:
            "The upstream's certificate is not checked: anybody on the way may read credentials and answer in its place. Warned of at every start.",
          "x-expected": "true or false",
        },
      },
      {
        default: {},
        description: "TLS towards the upstream.",
        "x-expected": "a mapping",
      },
    ),
  },
  {
    type: ["object", "null"],
    description:
      "One registry; the key is its name as in an image reference, such as `docker.io` or `registry.corp:5000`. An entry without a value has every default.",
    "x-expected": "a mapping",
    "x-absent": "the registry is not mirrored",
  },
);
