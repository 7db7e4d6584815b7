import type { ConfigDocument, Pruned } from "./document.ts";
import type { KeyPath } from "./fault.ts";
import { isLoopbackUrl } from "./schema/forms.ts";
import type { PlacedFault } from "./validate.ts";

/** Faults between the keys of `tls` and `access`. */
export function* checkAccess(
  document: Pruned<ConfigDocument>,
  isFaulty: (path: KeyPath) => boolean,
): Generator<PlacedFault> {
  yield* checkServerTls(document, isFaulty);
  yield* checkTokenServer(document, isFaulty);
  const { access } = document;
  if (
    access?.anonymous === "none" &&
    !access.htpasswdFile &&
    !access.tokenServer?.realm &&
    !isFaulty(["access", "tokenServer", "realm"]) &&
    !isFaulty(["access", "htpasswdFile"])
  ) {
    yield {
      path: ["access", "anonymous"],
      seen: "none, without any users: nobody could pull",
      expected: "htpasswdFile or tokenServer beside it",
    };
  }
}

function* checkServerTls(
  { tls }: Pruned<ConfigDocument>,
  isFaulty: (path: KeyPath) => boolean,
): Generator<PlacedFault> {
  const keys = ["certificateFile", "keyFile"] as const;
  const isAny = keys.some((key) => tls?.[key]) || tls?.clientCaFile;
  if (!isAny) return;
  for (const key of keys) {
    const path = ["tls", key];
    if (tls?.[key] || isFaulty(path)) continue;
    yield {
      path,
      seen: "not written",
      expected: "certificateFile and keyFile, which belong together",
    };
  }
}

function* checkTokenServer(
  { access }: Pruned<ConfigDocument>,
  isFaulty: (path: KeyPath) => boolean,
): Generator<PlacedFault> {
  const server = access?.tokenServer;
  if (server === undefined || !Object.values(server).some(Boolean)) return;
  const place = ["access", "tokenServer"];
  for (const key of ["realm", "service", "issuer"] as const) {
    const path = [...place, key];
    if (server[key] || isFaulty(path)) continue;
    yield {
      path,
      seen: "not written",
      expected: "realm, service and issuer, which belong together",
    };
  }
  const { jwksFile, certificateFile } = server;
  if (Boolean(jwksFile) === Boolean(certificateFile)) {
    yield {
      path: place,
      seen: jwksFile
        ? "both jwksFile and certificateFile"
        : "neither jwksFile nor certificateFile",
      expected: "one of them",
    };
  }
}

/** What is allowed, and hardly ever meant. */
export function* findAccessRisks({
  access,
  tls,
}: Pruned<ConfigDocument>): Generator<PlacedFault> {
  if (access === undefined) return;
  const realm = access.tokenServer?.realm;
  if (realm?.startsWith("http:") && !isLoopbackUrl(realm)) {
    yield {
      path: ["access", "tokenServer", "realm"],
      seen: "an http URL: anybody on the way can read the passwords",
      expected: "https",
    };
  }
  const isAnonymousEverywhere =
    access.anonymous !== "none" &&
    (access.anonymousNetworks ?? []).length === 0;
  if (!isAnonymousEverywhere) return;
  if (tls?.clientCaFile) {
    yield {
      path: ["tls", "clientCaFile"],
      seen: "certificates are asked for, where everybody may pull without one",
      expected:
        "anonymous: none, or anonymousNetworks; without access a certificate is needed by everybody",
    };
  }
  const expected =
    "anonymous: none, or anonymousNetworks: dockerd and podman send a password only where they are asked for one";
  const at = (access.rules ?? []).findIndex(
    (rule) => rule?.who !== undefined && !rule.who.includes("*"),
  );
  if (at !== -1) {
    yield {
      path: ["access", "rules", at, "who"],
      seen: "users, where everybody may pull without a password and none is asked for",
      expected,
    };
  } else if (
    (access.rules ?? []).length === 0 &&
    (access.htpasswdFile || realm)
  ) {
    yield {
      path: ["access", access.htpasswdFile ? "htpasswdFile" : "tokenServer"],
      seen: "users, where everybody may pull everything without a password",
      expected,
    };
  }
}
