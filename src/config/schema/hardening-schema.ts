import { fileOf, listOf, mappingOf, textOf } from "./schema-node.ts";

/** `operator.tokenFile` */
export const OPERATOR_TOKEN_FILE_SCHEMA = fileOf({
  description:
    "A file with the bearer token that `/api/v1` requires, at least 16 characters long. Must have mode 0600 or 0640: rejected if every user of the machine may read it. `/healthz`, `/readyz` and `/metrics` need no token.",
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
      "Proxies in front of the mirror: their `X-Forwarded-For` gives the client's address for the log, the audit, `access.anonymousNetworks` and the limit of failed log-ins.",
    examples: [["10.0.0.5", "fd00::/64"]],
    "x-expected": "a list of addresses and networks, each once",
    "x-zero": "X-Forwarded-* headers are ignored",
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
        "The limit of all client connections. A further one closes the longest idle one; if all are busy it is refused.",
      examples: [4096],
      "x-expected": "a whole number from 0 to 1000000",
      "x-zero": "half of the files that the process may open, at most 16384",
    },
    connectionsPerAddress: {
      type: "integer",
      minimum: 0,
      maximum: MAX_COUNT,
      default: 0,
      description:
        "The limit for one address, or one /64 of IPv6. Trusted proxies are subject only to the limit of all connections.",
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
        "Concurrent downloads into the cache, of all upstreams together. Further ones wait, and the upstreams take turns; a download without a reading client is ended first. A client that has waited for 17 s receives 503 with `Retry-After`, and its download keeps its place in the queue.",
      examples: [64],
      "x-expected": "a whole number from 0 to 10000",
      "x-zero":
        "as many as the files that the process may open and the memory of the machine allow, at most 4096",
    },
    uploads: {
      type: "integer",
      minimum: 0,
      maximum: 10_000,
      default: 0,
      description:
        "Uploads to hosted repositories that are in progress or were used in the last 30 s, of all clients together. A further one is answered with 429 and `Retry-After`. Uploads that wait longer are kept on disk, 10000 at most.",
      examples: [256],
      "x-expected": "a whole number from 0 to 10000",
      "x-zero":
        "as many as the files that the process may open and the memory of the machine allow",
    },
  },
  {
    default: {},
    description: "Limits of concurrent work for clients.",
    "x-expected": "a mapping",
  },
);

/** `audit` */
export const AUDIT_SCHEMA = mappingOf(
  {
    file: fileOf({
      description:
        "A file that receives a JSON line for each denial, failed log-in, reload, purge, pin and moved tag, each push, deletion, tag and collection of hosted repositories, and each export, import, take-over and job of an operator. Reopened at SIGHUP.",
      examples: ["/var/log/entrepot/audit.jsonl", "-"],
      "x-expected": "the path of a file, or - for standard output",
      "x-absent": "nothing is recorded",
      "x-path": "file or -",
    }),
  },
  {
    default: {},
    description: "The record of denials and changes.",
    "x-expected": "a mapping",
  },
);
