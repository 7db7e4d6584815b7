import { fileOf, listOf, mappingOf, textOf } from "./schema-node.ts";

const TOKEN_SERVER = mappingOf(
  {
    realm: textOf("realm", {
      description: "The URL at which clients ask for a token.",
      examples: ["https://auth.corp/token"],
      "x-expected":
        "an absolute http or https URL, such as https://auth.corp/token",
      "x-zero": "an empty text is as absent",
      "x-absent": "no token server; every other key here is then absent too",
    }),
    service: {
      type: "string",
      pattern: '^[^"\\\\\\u0000-\\u001f\\u007f]*$',
      description:
        "The mirror's name at the token server, which a token must carry as its audience.",
      examples: ["mirror.corp"],
      "x-expected": "a text without quotes",
      "x-zero": "an empty text is as absent",
      "x-absent": "a fault where realm is written",
    },
    issuer: {
      type: "string",
      description: "The token server's name, which a token must carry.",
      examples: ["auth.corp"],
      "x-expected": "a text",
      "x-zero": "an empty text is as absent",
      "x-absent": "a fault where realm is written",
    },
    jwksFile: fileOf({
      description:
        "A JSON Web Key Set with the public keys that sign tokens. Read again when it changes.",
      examples: ["/etc/entrepot/jwks.json"],
      "x-absent": "certificateFile gives the keys; exactly one is written",
    }),
    certificateFile: fileOf({
      description:
        "PEM certificates with the public keys that sign tokens. Read again when it changes.",
      examples: ["/etc/entrepot/auth.crt"],
      "x-absent": "jwksFile gives the keys; exactly one is written",
    }),
  },
  {
    description:
      "A token server of the Docker and Distribution kind whose bearer tokens are believed. Tokens are signed with RS, PS, ES or EdDSA, never with a shared secret.",
    "x-expected": "a mapping",
    "x-absent": "no token is believed",
  },
);

const RULE = mappingOf(
  {
    who: listOf(
      {
        type: "string",
        // RFC 7617: a user-id with a colon cannot be told from its password.
        pattern: "^[^:\\u0000-\\u001f\\u007f]+$",
        "x-expected": 'a user\'s name, or "*"',
        // Who writes USER:PASSWORD here finds the password in no log.
        "x-secret": true,
      },
      {
        minItems: 1,
        description:
          'Users, by the names of the htpasswd file or the subjects of tokens; `"*"` is everybody, anonymous clients included.',
        examples: [["alice", "ci"], ["*"]],
        "x-expected": 'a list of users\' names, or ["*"]',
      },
    ),
    repositories: listOf(
      textOf("repositories", {
        "x-expected":
          "a pattern over upstream/repository, such as docker.io/library/*",
      }),
      {
        minItems: 1,
        description:
          "Patterns over `upstream/repository`: `*` stays within a path component, `**` crosses them.",
        examples: [["docker.io/**", "registry.corp:5000/team/*"]],
        "x-expected": 'a list of patterns, such as ["docker.io/library/*"]',
      },
    ),
    actions: listOf(
      {
        type: "string",
        enum: ["pull", "push", "delete"],
        "x-expected": "one of pull, push, delete",
      },
      {
        minItems: 1,
        description:
          "What they may do there. Mirrored repositories can only be pulled from, whatever a rule says.",
        examples: [["pull"]],
        "x-expected": "a list of pull, push and delete",
      },
    ),
  },
  {
    required: ["who", "repositories", "actions"],
    "x-expected": "a mapping of who, repositories and actions",
  },
);

/** `access`: who may use the mirror. */
export const ACCESS_SCHEMA = mappingOf(
  {
    htpasswdFile: fileOf({
      description:
        "Users and their passwords, a line `USER:HASH` each as `entrepot passwd USER` prints it. bcrypt only, cost 14 at most. Read again when it changes.",
      examples: ["/etc/entrepot/htpasswd"],
      "x-absent": "no passwords are known",
    }),
    tokenServer: TOKEN_SERVER,
    anonymous: {
      type: "string",
      enum: ["pull", "none"],
      default: "pull",
      description:
        "What clients without credentials may do. Where it is `pull`, unknown credentials are ignored and nobody is asked for any.",
      "x-expected": "pull or none",
    },
    anonymousNetworks: listOf(
      textOf("network", {
        "x-expected": "an address or a network, such as 10.0.0.0/8",
      }),
      {
        default: [],
        maxItems: 256,
        description:
          "Networks from which anonymous clients are let in; elsewhere credentials are needed.",
        examples: [["10.0.0.0/8", "fd00::/8"]],
        "x-expected": "a list of addresses and networks, each once",
        "x-zero": "every network",
      },
    ),
    rules: {
      type: "array",
      items: RULE,
      default: [],
      maxItems: 1024,
      description:
        "Who may do what in which repositories. Once there is a rule, what no rule allows is answered as if it were not there.",
      examples: [
        [
          {
            who: ["*"],
            repositories: ["docker.io/**"],
            actions: ["pull"],
          },
        ],
      ],
      "x-expected": "a list of mappings of who, repositories and actions",
      "x-zero": "whoever is let in may pull everything",
    },
  },
  {
    description: "Who may use the mirror.",
    "x-expected": "a mapping",
    "x-absent": "whoever reaches the mirror may pull",
  },
);
