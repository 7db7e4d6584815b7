import { fileOf, listOf, mappingOf, textOf } from "./schema-node.ts";

/** `operator.tokenFile` */
export const OPERATOR_TOKEN_FILE_SCHEMA = fileOf({
  description:
    "A file with the bearer token that `/api/v1` asks for, 16 characters or more. Mode 0600 or 0640: refused where everybody on the machine may read it. `/healthz`, `/readyz` and `/metrics` are open.",
  examples: ["/run/secrets/entrepot-token"],
  "x-absent": "`/api/v1` answers clients of this machine only",
});

/** `trustedProxies` */
export const TRUSTED_PROXIES_SCHEMA = listOf(
  textOf("network", {
    "x-expected": "an address or a network, such as 10.0.0.0/8",
  }),
  {
    default: [],
    maxItems: 256,
    description:
      "Proxies in front of the mirror: their `X-Forwarded-For` tells who the client is, for the log, the audit, `access.anonymousNetworks` and the limit of failed log-ins.",
    examples: [["10.0.0.5", "fd00::/64"]],
    "x-expected": "a list of addresses and networks, each once",
    "x-zero": "nobody's X-Forwarded-* is believed",
  },
);

const MAX_COUNT = 1_000_000;

/** `limits` */
export const LIMITS_SCHEMA = mappingOf(
  {
    connections: {
      type: "integer",
      minimum: 0,
      maximum: MAX_COUNT,
      default: 0,
      description:
        "Clients' connections in all. One more closes the longest idle one; where all are busy it is refused.",
      examples: [4096],
      "x-expected": "a whole number from 0 to 1000000",
      "x-zero": "half of the files that the process may open, 16384 at most",
    },
    connectionsPerAddress: {
      type: "integer",
      minimum: 0,
      maximum: MAX_COUNT,
      default: 0,
      description:
        "The same for one address, or one /64 of IPv6. Trusted proxies are only bound by the limit of all.",
      examples: [256],
      "x-expected": "a whole number from 0 to 1000000",
      "x-zero": "half of connections",
    },
    fills: {
      type: "integer",
      minimum: 0,
      maximum: 10_000,
      default: 0,
      description:
        "Downloads into the cache at once, of all upstreams together. More wait, the upstreams taking turns; a download that no client reads makes room. A client that has waited for 17 s is answered 503 with `Retry-After`, and its download keeps its place.",
      examples: [64],
      "x-expected": "a whole number from 0 to 10000",
      "x-zero":
        "as many as the files that the process may open and the memory of the machine allow, 4096 at most",
    },
  },
  {
    default: {},
    description: "Bounds on what clients can ask of the mirror at once.",
    "x-expected": "a mapping",
  },
);

/** `audit` */
export const AUDIT_SCHEMA = mappingOf(
  {
    file: fileOf({
      description:
        "Where a JSON line is appended for each denial, failed log-in, reload, purge, pin and tag that moved. Opened anew at SIGHUP.",
      examples: ["/var/log/entrepot/audit.jsonl", "-"],
      "x-expected": "the path of a file, or - for standard output",
      "x-absent": "nothing is recorded",
      "x-path": "file or -",
    }),
  },
  {
    default: {},
    description: "The record of who was refused and of what changed.",
    "x-expected": "a mapping",
  },
);
