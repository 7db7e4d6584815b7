import { X509Certificate } from "node:crypto";

const CERTIFICATE =
  /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

interface PemCertificate {
  readonly pem: string;
  readonly certificate: X509Certificate;
}

/** One at least. */
export type PemCertificates = readonly [PemCertificate, ...PemCertificate[]];

/**
 * Reads the certificates of a PEM text; what stands between them says nothing. Each is tried here,
 * for Node passes over what it cannot read in a list of authorities.
 *
 * @returns in words what is wrong, where there is none or one can't be read
 */
export function parseCertificates(text: string): PemCertificates | string {
  const found: PemCertificate[] = [];
  for (const pem of text.match(CERTIFICATE) ?? []) {
    try {
      found.push({ pem, certificate: new X509Certificate(pem) });
    } catch {
      return "a certificate that cannot be read";
    }
  }
  const [first, ...others] = found;
  return first === undefined ? "no certificate" : [first, ...others];
}
