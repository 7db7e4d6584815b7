import { createPrivateKey, type KeyObject } from "node:crypto";
import { parseCertificates, type PemCertificates } from "./certificates.ts";
import type { ServerTlsConfig } from "../config.ts";
import type { Flaw } from "../fault.ts";
import { readTextFile, seenIn } from "./files.ts";
import { findSecretFlaw } from "./secret-file.ts";

const MAX_FILE_BYTES = 1_048_576;

/** The content of the registry API's TLS files, checked against each other. */
export interface ServerTlsFiles {
  /** PEM, the server's own first. */
  readonly certificates: string;
  /** PEM. */
  readonly key: string;
  /** PEM; undefined if clients need no certificate. */
  readonly clientCa: string | undefined;
  /** The end of the server certificate's validity. */
  readonly notAfter: Date;
}

export interface ServerTlsFlaw extends Flaw {
  readonly key: keyof ServerTlsConfig;
}

export type ReadServerTls =
  | { readonly ok: true; readonly files: ServerTlsFiles }
  | { readonly ok: false; readonly flaws: readonly ServerTlsFlaw[] };

/** Reads the key pair and the clients' authorities. Never throws; no flaw holds a part of the key. */
export async function readServerTls(
  config: ServerTlsConfig,
): Promise<ReadServerTls> {
  const { certificateFile, keyFile, clientCaFile } = config;
  const flaws: ServerTlsFlaw[] = [];
  const reject = (
    key: keyof ServerTlsConfig,
    seen: string,
    expected: string,
  ): undefined => {
    flaws.push({ key, seen: seenIn(String(config[key]), seen), expected });
    return undefined;
  };
  const readCertificates = async (
    key: "certificateFile" | "clientCaFile",
    path: string,
  ): Promise<PemCertificates | undefined> => {
    const expected = "a readable file of PEM certificates";
    const read = await readTextFile(path, MAX_FILE_BYTES);
    if (!read.isRead) return reject(key, read.seen, expected);
    const found = parseCertificates(read.text);
    return typeof found === "string" ? reject(key, found, expected) : found;
  };

  const certificates = await readCertificates(
    "certificateFile",
    certificateFile,
  );
  const clientCa =
    clientCaFile === undefined
      ? undefined
      : await readCertificates("clientCaFile", clientCaFile);
  const keyFileText = await readTextFile(keyFile, MAX_FILE_BYTES);
  const expectedKey = "a readable file with the certificate's private key";
  let key: KeyObject | undefined;
  if (!keyFileText.isRead) {
    reject("keyFile", keyFileText.seen, expectedKey);
  } else {
    key = parseKey(keyFileText.text);
    if (key === undefined) {
      reject("keyFile", "an invalid private key", expectedKey);
    }
    const flaw = findSecretFlaw(keyFileText, keyFile);
    if (flaw !== undefined) flaws.push({ key: "keyFile", ...flaw });
  }
  const own = certificates?.[0].certificate;
  if (own !== undefined && key !== undefined && !own.checkPrivateKey(key)) {
    reject("keyFile", "the key of another certificate", expectedKey);
  }
  if (
    flaws.length > 0 ||
    certificates === undefined ||
    own === undefined ||
    !keyFileText.isRead
  ) {
    return { ok: false, flaws };
  }
  return {
    ok: true,
    files: {
      certificates: joinPem(certificates),
      key: keyFileText.text,
      clientCa: clientCa && joinPem(clientCa),
      notAfter: own.validToDate,
    },
  };
}

function joinPem(certificates: PemCertificates): string {
  return certificates.map(({ pem }) => pem).join("\n");
}

/** Returns undefined for a key with a passphrase too: a server cannot ask for it. */
function parseKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
