import { FORMS } from "./forms.ts";
import { listOf, mappingOf, type SchemaNode, textOf } from "./schema-node.ts";

const ANY_DURATION = "a duration such as 30s, 10m, 24h, 90d or forever";

function duration(value: string, node: SchemaNode): SchemaNode {
  return textOf("duration", {
    default: value,
    "x-expected": ANY_DURATION,
    ...node,
  });
}

/** A wait on the network: never 0, never without an end. */
function timeout(value: string, atMost: string, node: SchemaNode): SchemaNode {
  return duration(value, {
    "x-atLeast": "1ms",
    "x-atMost": atMost,
    "x-expected": `a duration above 0s and at most ${atMost}, such as ${value}`,
    ...node,
  });
}

const CREDENTIAL = mappingOf(
  {
    username: {
      type: "string",
      // RFC 7617: a user-id with a colon cannot be told from its password.
      pattern: "^[^:\\u0000-\\u001f\\u007f]+$",
      description: "The user name at the upstream.",
      examples: ["acme"],
      "x-expected": "a user name without a colon",
      "x-absent":
        "dockerConfigFile or helper tells it; a fault where neither is written",
      // Who writes USER:PASSWORD here finds the password in no log.
      "x-secret": true,
    },
    password: {
      type: "string",
      minLength: 1,
      description:
        "The password or access token itself. Better in a file: the configuration is often shown to others, and with it must be of mode 0600 or 0640.",
      examples: ["correct horse"],
      "x-expected": "a password that is not empty",
      "x-absent": "passwordFile gives it; exactly one of both is written",
      "x-secret": true,
    },
    passwordFile: {
      type: "string",
      minLength: 1,
      description:
        "A file that holds the password and nothing else; one newline at its end is cut off. Mode 0600 or 0640: refused where everybody on the machine may read it.",
      examples: ["/run/secrets/hub"],
      "x-expected": "the path of a file",
      "x-absent": "password gives it; exactly one of both is written",
    },
    dockerConfigFile: {
      type: "string",
      minLength: 1,
      description:
        "A `config.json` of Docker's: `auths` with passwords and identity tokens, `credHelpers`, `credsStore`; what it says of the endpoint's own host is used. Written alone; read again when it changes. With passwords or tokens in it of mode 0600 or 0640, as `docker login` writes it.",
      examples: ["~/.docker/config.json"],
      "x-expected": "the path of a file",
      "x-absent": "the other keys tell the account",
    },
    helper: {
      type: "string",
      pattern: "^[^\\u0000-\\u0020\\u007f]+$",
      description:
        "A program that speaks Docker's credential-helper protocol, by its name in `PATH` or by its path. Written alone; run without a shell as `PROGRAM get`, at most 10 s, and again before what it gave expires.",
      examples: ["docker-credential-ecr-login"],
      "x-expected":
        "a program's name or path without blanks, such as docker-credential-ecr-login",
      "x-absent": "the other keys tell the account",
    },
  },
  {
    "x-expected":
      "a mapping of username and password or passwordFile, of dockerConfigFile, or of helper",
    "x-secret": true,
  },
);

const FRESHNESS = mappingOf(
  {
    tagTtl: duration("10m", {
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
    staleIfGone: duration("0s", {
      description:
        "For so long from the first such answer a cached tag is served that the upstream answers with 404, or without credentials with 401 or 403. Pinned images are served in any case.",
      "x-zero": "it is dropped, and its digest kept",
    }),
    staleIfError: duration("forever", {
      description:
        "How old a tag may be to be answered when the upstream fails.",
      "x-zero": "an error is answered as an error",
    }),
    staleWhileRevalidate: duration("0s", {
      description:
        "For so long after its lifetime a tag is answered at once and revalidated behind the answer.",
      "x-zero": "the answer waits for the upstream",
    }),
    notFoundTtl: duration("30s", {
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

/** One entry of `upstreams`. */
export const UPSTREAM_SCHEMA = mappingOf(
  {
    default: {
      type: "boolean",
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
      ...CREDENTIAL,
      type: ["object", "array"],
      items: CREDENTIAL,
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
    freshness: FRESHNESS,
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
    connectTimeout: timeout("5s", "18s", {
      description: "For so long a connection may take, TLS included.",
    }),
    headersTimeout: timeout("10s", "18s", {
      description:
        "For so long the upstream may take to begin its answer. Engines are answered within 18 s whatever the upstream does.",
    }),
    idleTimeout: timeout("15s", "1h", {
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
        caFile: {
          type: "string",
          description:
            "PEM certificates of authorities that are believed beside those that Node.js believes.",
          examples: ["/etc/entrepot/ca.crt"],
          "x-expected": "the path of a PEM file",
          "x-zero": "an empty text is as absent",
          "x-absent": "those that Node.js believes",
        },
        certificateFile: {
          type: "string",
          description:
            "PEM certificate, with its chain, that the endpoint is shown; never shown to other hosts.",
          examples: ["/etc/entrepot/client.crt"],
          "x-expected": "the path of a PEM file",
          "x-zero": "an empty text is as absent",
          "x-absent": "no client certificate; written together with keyFile",
        },
        keyFile: {
          type: "string",
          description:
            "PEM key of certificateFile, without a pass phrase. Mode 0600 or 0640: refused where everybody on the machine may read it.",
          examples: ["/etc/entrepot/client.key"],
          "x-expected": "the path of a PEM file",
          "x-zero": "an empty text is as absent",
          "x-absent":
            "no client certificate; written together with certificateFile",
        },
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
