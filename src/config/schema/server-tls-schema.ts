import { fileOf, mappingOf } from "./schema-node.ts";

/** `tls`: the registry API's own certificate. */
export const SERVER_TLS_SCHEMA = mappingOf(
  {
    certificateFile: fileOf({
      "x-expected": "the path of a PEM file",
      description:
        "The certificate of the registry API in PEM, followed by the intermediate certificates. Read again when it changes.",
      examples: ["/etc/entrepot/tls.crt"],
      "x-absent": "plain HTTP; keyFile is then absent too",
    }),
    keyFile: fileOf({
      "x-expected": "the path of a PEM file",
      description:
        "The certificate's private key in PEM, without a passphrase. Read again when it changes. Must have mode 0600 or 0640: rejected if every user of the machine may read it.",
      examples: ["/etc/entrepot/tls.key"],
      "x-absent": "plain HTTP; certificateFile is then absent too",
    }),
    clientCaFile: fileOf({
      "x-expected": "the path of a PEM file",
      description:
        "PEM certificates of authorities. Clients are asked for a certificate, and one that none of these signed is rejected. Without `access` every client needs a certificate; with `access` a certificate is one way to authenticate, like anonymousNetworks, and the rest of `access` applies to clients without one. Read again when it changes.",
      examples: ["/etc/entrepot/clients-ca.crt"],
      "x-absent": "clients need no certificate",
    }),
  },
  {
    description: "TLS of the registry API, 1.2 and above.",
    "x-expected": "a mapping of certificateFile, keyFile and clientCaFile",
    "x-absent": "plain HTTP",
  },
);
