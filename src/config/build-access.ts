import type {
  AccessConfig,
  ServerTlsConfig,
  TokenServerConfig,
} from "./config.ts";
import type {
  AccessDocument,
  Pruned,
  ServerTlsDocument,
  TokenServerDocument,
} from "./document.ts";

type Resolve = (path: string) => string;

/** @returns undefined for plain HTTP; an empty text is as absent */
export function buildServerTls(
  document: Pruned<ServerTlsDocument> | undefined,
  resolve: Resolve,
): ServerTlsConfig | undefined {
  const { certificateFile, keyFile, clientCaFile } = document ?? {};
  if (!certificateFile || !keyFile) return undefined;
  return {
    certificateFile: resolve(certificateFile),
    keyFile: resolve(keyFile),
    clientCaFile: clientCaFile ? resolve(clientCaFile) : undefined,
  };
}

/** @returns undefined where it restricts nothing */
export function buildAccess(
  document: Pruned<AccessDocument> | undefined,
  resolve: Resolve,
): AccessConfig | undefined {
  if (document === undefined) return undefined;
  const { htpasswdFile, anonymous = "pull" } = document;
  return {
    htpasswdFile: htpasswdFile ? resolve(htpasswdFile) : undefined,
    tokenServer: buildTokenServer(document.tokenServer, resolve),
    anonymous,
    anonymousNetworks: written(document.anonymousNetworks),
    rules: written(document.rules).flatMap(
      ({ who, repositories, actions }) => ({
        who: written(who),
        repositories: written(repositories),
        actions: written(actions),
      }),
    ),
  };
}

function buildTokenServer(
  document: Pruned<TokenServerDocument> | undefined,
  resolve: Resolve,
): TokenServerConfig | undefined {
  const { realm, service, issuer, jwksFile, certificateFile } = document ?? {};
  const file = jwksFile || certificateFile;
  if (!realm || !service || !issuer || !file) return undefined;
  return {
    realm,
    service,
    issuer,
    keys: {
      kind: jwksFile ? "jwks" : "certificates",
      file: resolve(file),
    },
  };
}

function written<T>(list: readonly (T | undefined)[] | undefined): T[] {
  return (list ?? []).filter((item) => item !== undefined);
}
