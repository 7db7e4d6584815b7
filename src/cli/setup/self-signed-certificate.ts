import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from "node:crypto";
import { isIP } from "node:net";

/*
 * Node.js creates keys and signatures but not certificates, and the libraries for it have about
 * twenty dependencies for one page of DER. The format is that of RFC 5280.
 */

export interface SelfSignedCertificate {
  /** PEM. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
}

/**
 * Makes a self-signed certificate for a server with these names and addresses. It cannot sign other
 * certificates: a thief of its key can only impersonate this server.
 *
 * @param hosts names, also with a leading `*.`, and IP addresses; at least one
 * @param validFrom rounded down to the second
 */
export function makeSelfSignedCertificate(
  hosts: readonly string[],
  validFrom: Date,
  validTo: Date,
): SelfSignedCertificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
  });
  const algorithm = sequence(objectId(OID.ecdsaWithSha256));
  const name = distinguishedName(`entrepot ${hosts[0] ?? ""}`);
  const toBeSigned = sequence(
    element(0xa0, element(INTEGER, Buffer.from([2]))),
    serialNumber(),
    algorithm,
    name,
    sequence(time(validFrom), time(validTo)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    element(
      0xa3,
      sequence(
        extension(OID.basicConstraints, sequence(), true),
        extension(OID.keyUsage, bitString(7, Buffer.from([0x80])), true),
        extension(OID.extendedKeyUsage, sequence(objectId(OID.serverAuth))),
        extension(OID.subjectKeyIdentifier, keyIdentifier(publicKey)),
        extension(OID.subjectAltName, sequence(...hosts.map(generalName))),
      ),
    ),
  );
  const signature = sign("sha256", toBeSigned, privateKey);
  const der = sequence(toBeSigned, algorithm, bitString(0, signature));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }),
  };
}

const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OBJECT_ID = 0x06;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;
const SEQUENCE = 0x30;
const SET = 0x31;
/** Context tags 2 and 7 of a GeneralName. */
const DNS_NAME = 0x82;
const IP_ADDRESS = 0x87;

/** The bodies of the object identifiers. */
const OID = {
  commonName: "550403",
  subjectKeyIdentifier: "551d0e",
  keyUsage: "551d0f",
  subjectAltName: "551d11",
  basicConstraints: "551d13",
  extendedKeyUsage: "551d25",
  serverAuth: "2b06010505070301",
  ecdsaWithSha256: "2a8648ce3d040302",
};

/** Longest that RFC 5280 lets a common name be. */
const MAX_COMMON_NAME_LENGTH = 64;

function element(tag: number, content: Buffer): Buffer {
  if (content.length < 0x80) {
    return Buffer.concat([Buffer.from([tag, content.length]), content]);
  }
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  const significant = length.subarray(length.findIndex((byte) => byte !== 0));
  const head = Buffer.from([tag, 0x80 | significant.length]);
  return Buffer.concat([head, significant, content]);
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return element(SEQUENCE, Buffer.concat(parts));
}

function objectId(body: string): Buffer {
  return element(OBJECT_ID, Buffer.from(body, "hex"));
}

function bitString(unusedBits: number, bytes: Buffer): Buffer {
  return element(BIT_STRING, Buffer.concat([Buffer.from([unusedBits]), bytes]));
}

/** Positive, and without a leading zero that DER forbids. */
function serialNumber(): Buffer {
  const serial = randomBytes(16);
  serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
  return element(INTEGER, serial);
}

function distinguishedName(commonName: string): Buffer {
  const text = commonName.slice(0, MAX_COMMON_NAME_LENGTH);
  return sequence(
    element(
      SET,
      sequence(
        objectId(OID.commonName),
        element(UTF8_STRING, Buffer.from(text)),
      ),
    ),
  );
}

/** UTCTime through 2049 and GeneralizedTime after it, as RFC 5280 wants. */
function time(at: Date): Buffer {
  const digits = at.toISOString().replace(/[-:T]/g, "").slice(0, 14);
  return at.getUTCFullYear() < 2050
    ? element(UTC_TIME, Buffer.from(`${digits.slice(2)}Z`))
    : element(GENERALIZED_TIME, Buffer.from(`${digits}Z`));
}

function extension(oid: string, value: Buffer, isCritical = false): Buffer {
  return sequence(
    objectId(oid),
    ...(isCritical ? [element(0x01, Buffer.from([0xff]))] : []),
    element(OCTET_STRING, value),
  );
}

function keyIdentifier(publicKey: KeyObject): Buffer {
  const der = publicKey.export({ type: "spki", format: "der" });
  return element(OCTET_STRING, createHash("sha1").update(der).digest());
}

function generalName(host: string): Buffer {
  switch (isIP(host)) {
    case 4:
      return element(IP_ADDRESS, Buffer.from(host.split(".").map(Number)));
    case 6:
      return element(IP_ADDRESS, ipv6Bytes(host));
    default:
      return element(DNS_NAME, Buffer.from(host));
  }
}

/** The URL parser writes an IPv4 tail as two groups; `::` stands for what is missing. */
function ipv6Bytes(address: string): Buffer {
  const { hostname } = new URL(`http://[${address}]/`);
  const [head = "", tail] = hostname.slice(1, -1).split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  const bytes = Buffer.alloc(16);
  for (const [at, group] of [...before, ...zeros, ...after].entries()) {
    bytes.writeUInt16BE(Number.parseInt(group, 16), at * 2);
  }
  return bytes;
}
