import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import type { ServerTlsConfig } from "./config.ts";
import { readTextFile } from "./files.ts";
import { findSecretFlaw } from "./secret-file.ts";

const MAX_FILE_BYTES = 1_048_576;
const CERTIFICATE =
  /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** What the registry API's TLS files hold, checked against each other. */
export interface ServerTlsFiles {
  /** PEM, the server's own first. */
  readonly certificates: string;
  /** PEM. */
  readonly key: string;
  /** PEM; undefined where clients need no certificate. */
  readonly clientCa: string | undefined;
  /** When the server's own certificate ends. */
  readonly notAfter: Date;
}

export interface ServerTlsFlaw {
  readonly key: keyof ServerTlsConfig;
  readonly seen: string;
  readonly expected: string;
}

export type ReadServerTls =
  | { readonly ok: true; readonly files: ServerTlsFiles }
  | { readonly ok: false; readonly flaws: readonly ServerTlsFlaw[] };

/** Reads the pair and the clients' authorities. Never throws; no flaw holds a part of the key. */
export async function readServerTls(
  config: ServerTlsConfig,
): Promise<ReadServerTls> {
  const { certificateFile, keyFile, clientCaFile } = config;
  const flaws: ServerTlsFlaw[] = [];
  const refuse = (
    key: keyof ServerTlsConfig,
    seen: string,
    expected: string,
  ): undefined => {
    flaws.push({ key, seen: `${config[key]}: ${seen}`, expected });
    return undefined;
  };
  const readCertificates = async (
    key: "certificateFile" | "clientCaFile",
    path: string,
  ): Promise<readonly string[] | undefined> => {
    const expected = "a readable file of PEM certificates";
    const read = await readTextFile(path, MAX_FILE_BYTES);
    if (!read.isRead) return refuse(key, read.seen, expected);
    const found = read.text.match(CERTIFICATE) ?? [];
    if (found.length === 0) return refuse(key, "no certificate", expected);
    return found.every((pem) => parseCertificate(pem) !== undefined)
      ? found
      : refuse(key, "a certificate that cannot be read", expected);
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
    refuse("keyFile", keyFileText.seen, expectedKey);
  } else {
    key = parseKey(keyFileText.text);
    if (key === undefined) {
      refuse("keyFile", "no private key that can be read", expectedKey);
    }
    const flaw = findSecretFlaw(keyFileText, keyFile);
    if (flaw !== undefined) flaws.push({ key: "keyFile", ...flaw });
  }
  const own = parseCertificate(certificates?.[0] ?? "");
  if (own !== undefined && key !== undefined && !own.checkPrivateKey(key)) {
    refuse("keyFile", "the key of another certificate", expectedKey);
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
      certificates: certificates.join("\n"),
      key: keyFileText.text,
      clientCa: clientCa?.join("\n"),
      notAfter: own.validToDate,
    },
  };
}

function parseCertificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

/** A key with a passphrase is none here: nobody is there to type it. */
function parseKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
