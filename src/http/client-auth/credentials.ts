/** The credentials in `Authorization`. */
export type Credentials =
  | { readonly kind: "none" }
  | {
      readonly kind: "password";
      readonly user: string;
      readonly password: string;
    }
  | { readonly kind: "token"; readonly token: string }
  /** Not valid for any user. */
  | {
      readonly kind: "malformed";
      readonly scheme: "basic" | "bearer" | "other";
    };

/** Many times a user name and the 72 bytes that bcrypt reads. */
const MAX_BASIC_LENGTH = 4_096;
/** Longer tokens are rejected before they are split and decoded. */
export const MAX_TOKEN_LENGTH = 8_192;

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;
const TOKEN = /^[A-Za-z0-9._~+/=-]+$/;

/**
 * Parses `Authorization`. skopeo without credentials sends `Basic Og==`, an empty user and an empty
 * password. Never throws.
 *
 * @see https://www.rfc-editor.org/rfc/rfc7617
 * @see https://www.rfc-editor.org/rfc/rfc6750#section-2.1
 */
export function parseAuthorization(header: string | undefined): Credentials {
  if (header === undefined) return { kind: "none" };
  const spaceAt = header.indexOf(" ");
  const scheme = header.slice(0, spaceAt === -1 ? undefined : spaceAt);
  const rest = spaceAt === -1 ? "" : header.slice(spaceAt + 1).trim();
  switch (scheme.toLowerCase()) {
    case "basic":
      return parseBasic(rest) ?? { kind: "malformed", scheme: "basic" };
    case "bearer":
      return rest.length <= MAX_TOKEN_LENGTH && TOKEN.test(rest)
        ? { kind: "token", token: rest }
        : { kind: "malformed", scheme: "bearer" };
    default:
      return { kind: "malformed", scheme: "other" };
  }
}

function parseBasic(encoded: string): Credentials | undefined {
  if (encoded.length > MAX_BASIC_LENGTH || !BASE64.test(encoded)) {
    return undefined;
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      Buffer.from(encoded, "base64"),
    );
  } catch {
    return undefined;
  }
  const colonAt = text.indexOf(":");
  // bcrypt stops at a NUL: `right\0anything` would be equal to `right`.
  if (colonAt < 1 || /\p{Cc}/u.test(text)) return undefined;
  return {
    kind: "password",
    user: text.slice(0, colonAt),
    password: text.slice(colonAt + 1),
  };
}
