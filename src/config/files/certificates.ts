import { X509Certificate } from "node:crypto";

const CERTIFICATE =
  /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

interface PemCertificate {
  readonly pem: string;
  readonly certificate: X509Certificate;
}

/** At least one. */
export type PemCertificates = readonly [PemCertificate, ...PemCertificate[]];

/**
 * Parses the certificates of a PEM text and ignores the text between them. Each one is parsed here,
 * since Node silently skips invalid ones in a list of authorities.
 *
 * @returns the reason, as a text, if there is none or one is invalid
 */
export function parseCertificates(text: string): PemCertificates | string {
  const found: PemCertificate[] = [];
  for (const pem of text.match(CERTIFICATE) ?? []) {
    try {
      found.push({ pem, certificate: new X509Certificate(pem) });
    } catch {
      return "an invalid certificate";
    }
  }
  const [first, ...others] = found;
  return first === undefined ? "no certificates" : [first, ...others];
}
