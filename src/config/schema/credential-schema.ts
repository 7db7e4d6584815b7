import { mappingOf } from "./schema-node.ts";

/** One account of `upstreams.<name>.credentials`. */
export const CREDENTIAL_SCHEMA = mappingOf(
  {
    username: {
      type: "string",
      // RFC 7617: a colon ends the user-id.
      pattern: "^[^:\\u0000-\\u001f\\u007f]+$",
      description: "The user name at the upstream.",
      examples: ["acme"],
      "x-expected": "a user name without a colon",
      "x-absent":
        "dockerConfigFile or helper provides it; a fault if both are absent",
      // Hidden, since an operator may write USER:PASSWORD here.
      "x-secret": true,
    },
    password: {
      type: "string",
      minLength: 1,
      description:
        "The password or access token itself. Prefer a file: a configuration with a password must have mode 0600 or 0640.",
      examples: ["correct horse"],
      "x-expected": "a password that is not empty",
      "x-absent": "passwordFile provides it; exactly one of both is required",
      "x-secret": true,
    },
    passwordFile: {
      type: "string",
      "x-path": "file",
      minLength: 1,
      description:
        "A file that holds only the password; one trailing newline is removed. Must have mode 0600 or 0640: rejected if every user of the machine may read it.",
      examples: ["/run/secrets/hub"],
      "x-expected": "the path of a file",
      "x-absent": "password provides it; exactly one of both is required",
    },
    dockerConfigFile: {
      type: "string",
      "x-path": "file",
      minLength: 1,
      description:
        "A Docker `config.json`: `auths` with passwords and identity tokens, `credHelpers`, `credsStore`; the entry of the endpoint's own host is used. Excludes the other keys; read again when it changes. Must have mode 0600 or 0640, as `docker login` writes it, if it holds passwords or tokens.",
      examples: ["~/.docker/config.json"],
      "x-expected": "the path of a file",
      "x-absent": "the other keys define the account",
    },
    helper: {
      type: "string",
      "x-path": "program",
      pattern: "^[^\\u0000-\\u0020\\u007f]+$",
      description:
        "A program that speaks Docker's credential-helper protocol, by its name in `PATH` or by its path. Excludes the other keys; run without a shell as `PROGRAM get`, for at most 10 s, and again before its credentials expire.",
      examples: ["docker-credential-ecr-login"],
      "x-expected":
        "a program's name or path without blanks, such as docker-credential-ecr-login",
      "x-absent": "the other keys define the account",
    },
  },
  {
    "x-expected":
      "a mapping of username and password or passwordFile, of dockerConfigFile, or of helper",
    "x-secret": true,
  },
);
