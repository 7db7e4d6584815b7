import type { AccessAction, TokenServerConfig } from "../../config/config.ts";
import type { Right } from "./policy.ts";

/**
 * Returns the value of `WWW-Authenticate`. With a token server only `Bearer` is offered: engines may
 * choose either of two schemes, and a password for the mirror is not valid for the token server.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
 * @see https://distribution.github.io/distribution/spec/auth/token/
 */
export function formatChallenge(
  tokenServer: TokenServerConfig | undefined,
  right: Right,
  error: "invalid_token" | "insufficient_scope" | undefined,
): string {
  if (tokenServer === undefined) return 'Basic realm="entrepot"';
  const scope = scopeOf(right);
  const parameters = [
    `realm="${tokenServer.realm}"`,
    `service="${tokenServer.service}"`,
    ...(scope === undefined ? [] : [`scope="${scope}"`]),
    ...(error === undefined ? [] : [`error="${error}"`]),
  ];
  return `Bearer ${parameters.join(",")}`;
}

/** The scopes of a challenge: a client that pushes also reads the content of the repository. */
const SCOPES: Readonly<Record<AccessAction, string>> = {
  pull: "pull",
  push: "pull,push",
  delete: "delete",
};

function scopeOf(right: Right): string | undefined {
  switch (right.kind) {
    case "enter":
      return undefined;
    case "catalog":
    case "catalog-entry":
      return "registry:catalog:*";
    case "repository":
      return `repository:${right.name}:${SCOPES[right.action]}`;
    default:
      return right satisfies never;
  }
}
