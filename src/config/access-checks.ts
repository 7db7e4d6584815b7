import { type ConfigDocument, hostedOf, type Pruned } from "./document.ts";
import type { KeyPath, PlacedFault } from "./fault.ts";
import { isLoopbackUrl } from "./schema/forms.ts";

/** Finds faults between the keys of `tls` and `access`. */
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
      seen: "none without any users, which lets no client pull",
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
      seen: "no value",
      expected: "both certificateFile and keyFile",
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
      seen: "no value",
      expected: "realm, service and issuer together",
    };
  }
  const { jwksFile, certificateFile } = server;
  if (Boolean(jwksFile) === Boolean(certificateFile)) {
    yield {
      path: place,
      seen: jwksFile
        ? "both jwksFile and certificateFile"
        : "neither jwksFile nor certificateFile",
      expected: "exactly one of them",
    };
  }
}

/** Finds settings that are allowed but rarely intended. */
export function* findAccessRisks(
  document: Pruned<ConfigDocument>,
): Generator<PlacedFault> {
  const { access, tls } = document;
  if (access === undefined) return;
  const isHosting = hostedOf(document).length > 0;
  const realm = access.tokenServer?.realm;
  if (realm?.startsWith("http:") && !isLoopbackUrl(realm)) {
    yield {
      path: ["access", "tokenServer", "realm"],
      seen: "an http URL, which sends passwords in clear text",
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
      seen: "client certificates while every client may pull without one",
      expected: "anonymous: none, or anonymousNetworks",
      fix: "without access every client needs a certificate",
    };
  }
  const expected = "anonymous: none, or anonymousNetworks";
  const fix =
    "dockerd and podman send a password only if they are asked for one";
  const rules = access.rules ?? [];
  const at = rules.findIndex(
    (rule) => rule?.who !== undefined && !rule.who.includes("*"),
  );
  const pushAt = rules.findIndex(
    (rule) => rule?.actions?.some((action) => action !== "pull") === true,
  );
  if (at !== -1) {
    yield {
      path: ["access", "rules", at, "who"],
      seen: "users while every client may pull without a password and none is asked for",
      expected,
      fix,
    };
  } else if (pushAt !== -1) {
    yield {
      path: ["access", "rules", pushAt, "actions"],
      seen: "push or delete while every client may pull without a password and none is asked for",
      expected,
      fix,
    };
  } else if (rules.length === 0 && (access.htpasswdFile || realm)) {
    yield {
      path: ["access", access.htpasswdFile ? "htpasswdFile" : "tokenServer"],
      seen: isHosting
        ? "users, who may push, while every client may pull everything without a password"
        : "users while every client may pull everything without a password",
      expected,
      fix,
    };
  }
}
