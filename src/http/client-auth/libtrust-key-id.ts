import { createHash, type KeyObject } from "node:crypto";

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ID_BYTES = 30;

/**
 * Returns the `kid` that Distribution's token servers write: the first 240 bits of the SHA-256 of
 * the public key in DER, in base32, in twelve groups of four: `PYYO:TEWU:…`.
 *
 * @see https://distribution.github.io/distribution/spec/auth/jwt/
 */
export function libtrustKeyId(key: KeyObject): string {
  const der = key.export({ type: "spki", format: "der" });
  const bytes = createHash("sha256").update(der).digest().subarray(0, ID_BYTES);
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32.charAt((held >> bits) & 31);
      held &= (1 << bits) - 1;
    }
  }
  return text.match(/.{4}/g)?.join(":") ?? text;
}
