import { fileOf, listOf, mappingOf, textOf } from "./schema-node.ts";

const TOKEN_SERVER = mappingOf(
  {
    realm: textOf("realm", {
      description: "The URL from which clients request a token.",
      examples: ["https://auth.corp/token"],
      "x-expected":
        "an absolute http or https URL, such as https://auth.corp/token",
      "x-zero": "an empty text counts as absent",
      "x-absent": "no token server; the other keys must then be absent too",
    }),
    service: {
      type: "string",
      pattern: '^[^"\\\\\\u0000-\\u001f\\u007f]*$',
      description:
        "The mirror's name at the token server: the required audience of a token.",
      examples: ["mirror.corp"],
      "x-expected": "a text without quotes",
      "x-zero": "an empty text counts as absent",
      "x-absent": "a fault if realm is set",
    },
    issuer: {
      type: "string",
      description: "The token server's name: the required issuer of a token.",
      examples: ["auth.corp"],
      "x-expected": "a text",
      "x-zero": "an empty text counts as absent",
      "x-absent": "a fault if realm is set",
    },
    jwksFile: fileOf({
      description:
        "A JSON Web Key Set with the public keys that sign tokens. Read again when it changes.",
      examples: ["/etc/entrepot/jwks.json"],
      "x-absent":
        "certificateFile provides the keys; exactly one of both is required",
    }),
    certificateFile: fileOf({
      description:
        "PEM certificates with the public keys that sign tokens. Read again when it changes.",
      examples: ["/etc/entrepot/auth.crt"],
      "x-absent": "jwksFile provides the keys; exactly one of both is required",
    }),
  },
  {
    description:
      "A token server of the Docker and Distribution kind whose bearer tokens are accepted. Tokens are signed with RS, PS, ES or EdDSA, never with a shared secret.",
    "x-expected": "a mapping",
    "x-absent": "no token is accepted",
  },
);

const RULE = mappingOf(
  {
    who: listOf(
      {
        type: "string",
        // RFC 7617: a colon ends the user-id.
        pattern: "^[^:\\u0000-\\u001f\\u007f]+$",
        "x-expected": 'a user\'s name, or "*"',
        // Hidden, since an operator may write USER:PASSWORD here.
        "x-secret": true,
      },
      {
        minItems: 1,
        description:
          'Users, by the names of the htpasswd file or the subjects of tokens; `"*"` matches every client, including anonymous ones, which only pull.',
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
          "The permitted actions; `push` includes `pull`. Mirrored repositories are never pushed to; `delete` drops their cached copies.",
        examples: [["pull"], ["push", "delete"]],
        "x-expected": "a list of pull, push and delete",
      },
    ),
  },
  {
    required: ["who", "repositories", "actions"],
    "x-expected": "a mapping of who, repositories and actions",
  },
);

/** `access`: authentication and authorization of clients. */
export const ACCESS_SCHEMA = mappingOf(
  {
    htpasswdFile: fileOf({
      description:
        "Users and their passwords, one line `USER:HASH` each, as `entrepot passwd USER` prints it. Only bcrypt, with a cost of at most 14. Read again when it changes.",
      examples: ["/etc/entrepot/htpasswd"],
      "x-absent": "no passwords are accepted",
    }),
    tokenServer: TOKEN_SERVER,
    anonymous: {
      type: "string",
      enum: ["pull", "none"],
      default: "pull",
      description:
        "The rights of clients without credentials, and of those with only a client certificate. With `pull`, unknown credentials are ignored and no client is asked for any, except to push or delete.",
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
          "Networks whose anonymous clients are let in; other clients need credentials.",
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
        "Rights of users in repositories. As soon as one rule exists, reads that no rule allows are answered as missing content, and pushes and deletions are refused.",
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
      "x-zero":
        "every client that is let in may pull everything, and users who logged in may push to and delete from hosted registries",
    },
  },
  {
    description: "Authentication and authorization of clients.",
    "x-expected": "a mapping",
    "x-absent":
      "every client that reaches the mirror may pull; anonymousPush of a hosted registry decides who may push",
  },
);
