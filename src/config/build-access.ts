import type {
  AccessConfig,
  ServerTlsConfig,
  TokenServerConfig,
} from "./config.ts";
import type { ConfigDocument, Pruned } from "./document.ts";
import { ACCESS_SCHEMA } from "./schema/access-schema.ts";
import { SERVER_TLS_SCHEMA } from "./schema/server-tls-schema.ts";
import { readSettings, type Settings } from "./schema/settings.ts";

type Resolve = (path: string) => string;

/** Returns undefined for plain HTTP. */
export function buildServerTls(
  document: Pruned<ConfigDocument>["tls"],
  resolve: Resolve,
): ServerTlsConfig | undefined {
  const { certificateFile, keyFile, clientCaFile } = readSettings(
    SERVER_TLS_SCHEMA,
    document ?? {},
    resolve,
  );
  return certificateFile === undefined || keyFile === undefined
    ? undefined
    : { certificateFile, keyFile, clientCaFile };
}

/** Returns undefined if the configuration has no `access`, which restricts nothing. */
export function buildAccess(
  document: Pruned<ConfigDocument>["access"],
  resolve: Resolve,
): AccessConfig | undefined {
  if (document === undefined) return undefined;
  const settings = readSettings(ACCESS_SCHEMA, document, resolve);
  return { ...settings, tokenServer: buildTokenServer(settings.tokenServer) };
}

function buildTokenServer(
  server: Settings<typeof ACCESS_SCHEMA>["tokenServer"],
): TokenServerConfig | undefined {
  const { realm, service, issuer, jwksFile, certificateFile } = server ?? {};
  const file = jwksFile ?? certificateFile;
  if (!realm || !service || !issuer || file === undefined) return undefined;
  const kind = jwksFile === undefined ? "certificates" : "jwks";
  return { realm, service, issuer, keys: { kind, file } };
}
