import { mappingOf } from "./schema-node.ts";

/** One account of `upstreams.<name>.credentials`. */
export const CREDENTIAL_SCHEMA = mappingOf(
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
      "x-path": "file",
      minLength: 1,
      description:
        "A file that holds the password and nothing else; one newline at its end is cut off. Mode 0600 or 0640: refused where everybody on the machine may read it.",
      examples: ["/run/secrets/hub"],
      "x-expected": "the path of a file",
      "x-absent": "password gives it; exactly one of both is written",
    },
    dockerConfigFile: {
      type: "string",
      "x-path": "file",
      minLength: 1,
      description:
        "A `config.json` of Docker's: `auths` with passwords and identity tokens, `credHelpers`, `credsStore`; what it says of the endpoint's own host is used. Written alone; read again when it changes. With passwords or tokens in it of mode 0600 or 0640, as `docker login` writes it.",
      examples: ["~/.docker/config.json"],
      "x-expected": "the path of a file",
      "x-absent": "the other keys tell the account",
    },
    helper: {
      type: "string",
      "x-path": "program",
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
