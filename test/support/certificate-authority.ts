import {
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from "node:crypto";
import { isIP } from "node:net";

/** A certificate and its key in PEM, as `node:tls` accepts them. */
export interface IssuedCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface IssueOptions {
  /** Names and addresses that the certificate is valid for; default: those of the loopback. */
  readonly hosts?: readonly string[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
}

/** Authority for one test: X.509 v3 on P-256. The DER is written here, so that no tool is needed. */
export interface CertificateAuthority {
  /** PEM. */
  readonly cert: string;
  issue(options?: IssueOptions): IssuedCertificate;
}

const DAY_MS = 86_400_000;

export function createCertificateAuthority(
  name = "Entrepot test authority",
): CertificateAuthority {
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const cert = certificate({
    subject: name,
    issuer: name,
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    extensions: [
      extension(OID.basicConstraints, sequence(BOOLEAN_TRUE), true),
      extension(OID.keyUsage, tlv(0x03, Buffer.from([0x02, 0x04])), true),
    ],
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
  });
  return {
    cert,
    issue(options = {}) {
      const leaf = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const hosts = options.hosts ?? [
        "localhost",
        "127.0.0.1",
        "127.0.0.2",
        "::1",
      ];
      return {
        key: leaf.privateKey.export({ type: "pkcs8", format: "pem" }),
        cert: certificate({
          subject: hosts[0] ?? "localhost",
          issuer: name,
          publicKey: leaf.publicKey,
          signingKey: keys.privateKey,
          extensions: [
            extension(OID.subjectAltName, sequence(...hosts.map(generalName))),
          ],
          notBefore: options.notBefore ?? new Date(Date.now() - DAY_MS),
          notAfter: options.notAfter ?? new Date(Date.now() + DAY_MS),
        }),
      };
    },
  };
}

interface CertificateFields {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly signingKey: KeyObject;
  readonly extensions: readonly Buffer[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** DER contents of the object identifiers in use, from RFC 5280 and RFC 5758. */
const OID = {
  commonName: Buffer.from("550403", "hex"),
  basicConstraints: Buffer.from("551d13", "hex"),
  keyUsage: Buffer.from("551d0f", "hex"),
  subjectAltName: Buffer.from("551d11", "hex"),
  ecdsaWithSha256: Buffer.from("2a8648ce3d040302", "hex"),
};

/** @see https://www.rfc-editor.org/rfc/rfc5280#section-4.1 */
function certificate(fields: CertificateFields): string {
  const algorithm = sequence(tlv(0x06, OID.ecdsaWithSha256));
  const serial = randomBytes(8);
  serial[0] = 0x01;
  const toBeSigned = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, serial),
    algorithm,
    distinguishedName(fields.issuer),
    sequence(time(fields.notBefore), time(fields.notAfter)),
    distinguishedName(fields.subject),
    fields.publicKey.export({ type: "spki", format: "der" }),
    tlv(0xa3, sequence(...fields.extensions)),
  );
  const signature = sign("sha256", toBeSigned, fields.signingKey);
  const der = sequence(
    toBeSigned,
    algorithm,
    tlv(0x03, Buffer.concat([Buffer.from([0]), signature])),
  );
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function tlv(tag: number, content: Buffer): Buffer {
  if (content.length < 0x80) {
    return Buffer.concat([Buffer.from([tag, content.length]), content]);
  }
  // DER requires the shortest form of a length; Go rejects any other.
  if (content.length < 0x100) {
    return Buffer.concat([Buffer.from([tag, 0x81, content.length]), content]);
  }
  const length = Buffer.alloc(2);
  length.writeUInt16BE(content.length);
  return Buffer.concat([Buffer.from([tag, 0x82]), length, content]);
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return tlv(0x30, Buffer.concat(parts));
}

const BOOLEAN_TRUE = tlv(0x01, Buffer.from([0xff]));

function extension(oid: Buffer, value: Buffer, isCritical = false): Buffer {
  return sequence(
    tlv(0x06, oid),
    ...(isCritical ? [BOOLEAN_TRUE] : []),
    tlv(0x04, value),
  );
}

function distinguishedName(commonName: string): Buffer {
  return sequence(
    tlv(
      0x31,
      sequence(
        tlv(0x06, OID.commonName),
        tlv(0x0c, Buffer.from(commonName, "utf8")),
      ),
    ),
  );
}

/** GeneralizedTime, as in `20260101000000Z`. */
function time(at: Date): Buffer {
  return tlv(
    0x18,
    Buffer.from(`${at.toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`),
  );
}

function generalName(host: string): Buffer {
  if (isIP(host) === 4)
    return tlv(0x87, Buffer.from(host.split(".").map(Number)));
  if (isIP(host) === 6) {
    const bytes = Buffer.alloc(16);
    if (host !== "::1") throw new Error("only ::1 is written here");
    bytes[15] = 1;
    return tlv(0x87, bytes);
  }
  return tlv(0x82, Buffer.from(host));
}
