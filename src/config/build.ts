import { buildAccess, buildServerTls } from "./build-access.ts";
import { buildHosted, buildNotifications } from "./build-hosted.ts";
import type {
  Config,
  Secret,
  UpstreamConfig,
  UpstreamCredential,
} from "./config.ts";
import {
  type ConfigDocument,
  type CredentialDocument,
  isList,
  type UpstreamDocument,
} from "./document.ts";
import type { NotificationFiles } from "./files/notification-files.ts";
import type { UpstreamFiles } from "./files/upstream-files.ts";
import { chooseProxy } from "./proxy.ts";
import { CREDENTIAL_SCHEMA } from "./schema/credential-schema.ts";
import { isTemplate } from "./schema/forms.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";
import { readSettings } from "./schema/settings.ts";
import { UPSTREAM_SCHEMA } from "./schema/upstream-schema.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
  DOCKER_HUB_ENDPOINT,
} from "./schema/well-known-upstreams.ts";

export interface BuildParts {
  /** `storage.root`, absolute. */
  readonly storageRoot: string;
  /** The content of the files that each upstream names. */
  readonly files: ReadonlyMap<string, UpstreamFiles>;
  /** The content of `operator.tokenFile`. */
  readonly operatorToken: Secret | undefined;
  /** The content of the files of `notifications`; absent: without headers. */
  readonly notifications?: NotificationFiles;
  /** Makes a path of the configuration absolute. */
  readonly resolve: (path: string) => string;
  /** Gives the proxy of an upstream that has none of its own. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** {@link CONFIG_SCHEMA} if absent. */
  readonly schema?: typeof CONFIG_SCHEMA | undefined;
}

/** Turns a document without faults into the configuration, frozen to its leaves. */
export function buildConfig(
  document: ConfigDocument,
  parts: BuildParts,
): Config {
  const { storageRoot, operatorToken, resolve, schema = CONFIG_SCHEMA } = parts;
  const {
    listen,
    operator,
    tls: _tls,
    access: _access,
    ...settings
  } = readSettings(schema, document, resolve);
  const tls = buildServerTls(document.tls, resolve);
  const access = buildAccess(document.access, resolve);
  const upstreams = Object.entries(document.upstreams ?? {}).map(
    ([name, upstream]) => buildUpstream(name, upstream, parts),
  );
  const templates = upstreams.filter(({ name }) => isTemplate(name));
  return freeze({
    ...settings,
    listen: [listen].flat(),
    ...(tls === undefined ? {} : { tls }),
    operator: {
      ...operator,
      listen: operator.listen === false ? undefined : operator.listen,
      ...(operatorToken === undefined ? {} : { token: operatorToken }),
    },
    storage: { ...settings.storage, root: storageRoot },
    upstreams: upstreams.filter(({ name }) => !isTemplate(name)),
    hosted: buildHosted(document, resolve),
    notifications: buildNotifications(document, parts.notifications, resolve),
    ...(templates.length === 0 ? {} : { upstreamTemplates: templates }),
    ...(access === undefined ? {} : { access }),
  });
}

function buildUpstream(
  name: string,
  document: UpstreamDocument,
  { files: allFiles, resolve, env }: BuildParts,
): UpstreamConfig {
  const isHub = name === DOCKER_HUB;
  const files = allFiles.get(name);
  const ownEndpoint = isHub ? DOCKER_HUB_ENDPOINT : `https://${name}`;
  const { access: _access, ...settings } = readSettings(
    UPSTREAM_SCHEMA,
    document,
    resolve,
  );
  const { certificateFile: _file, keyFile: _key, ...tls } = settings.tls;
  const aliases = settings.aliases ?? (isHub ? [...DOCKER_HUB_ALIASES] : []);
  return {
    ...settings,
    name,
    endpoints: isTemplate(name) ? [] : (settings.endpoints ?? [ownEndpoint]),
    aliases,
    libraryPrefix:
      settings.libraryPrefix ?? (isHub || aliases.includes(DOCKER_HUB)),
    credentials: credentialList(document).flatMap((credential, index) =>
      buildCredential(credential, files?.passwords[index], resolve),
    ),
    proxy: chooseProxy(document.proxy, env),
    tls: {
      ...tls,
      ca: files?.ca,
      ...(files?.clientCertificate === undefined
        ? {}
        : { clientCertificate: files.clientCertificate }),
    },
  };
}

function credentialList({
  credentials,
}: UpstreamDocument): readonly CredentialDocument[] {
  if (credentials === undefined) return [];
  return isList(credentials) ? credentials : [credentials];
}

function buildCredential(
  document: CredentialDocument,
  password: Secret | undefined,
  resolve: (path: string) => string,
): UpstreamCredential[] {
  const { username, passwordFile, dockerConfigFile, helper } = readSettings(
    CREDENTIAL_SCHEMA,
    document,
    resolve,
  );
  if (helper !== undefined) return [{ helper }];
  if (dockerConfigFile !== undefined) return [{ dockerConfigFile }];
  if (username === undefined || password === undefined) return [];
  return passwordFile === undefined
    ? [{ username, password }]
    : [{ username, password, passwordFile }];
}

function freeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) freeze(part);
  }
  return value;
}
