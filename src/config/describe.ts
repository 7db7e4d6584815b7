import type {
  AccessConfig,
  Config,
  NotificationConfig,
  ProxyConfig,
  UpstreamConfig,
  UpstreamCredential,
} from "./config.ts";
import { isTemplate } from "./schema/forms.ts";
import type { SchemaNode } from "./schema/schema-node.ts";
import { HOSTED_SCHEMA } from "./schema/hosted-schema.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";
import { describeSettings } from "./schema/settings.ts";
import { UPSTREAM_SCHEMA } from "./schema/upstream-schema.ts";

/**
 * Returns the effective configuration as a configuration: every key, units in human form, paths
 * absolute, secrets hidden. With passwords in files it can be loaded again and means the same.
 */
export function describeConfig(
  config: Config,
  schema: SchemaNode = CONFIG_SCHEMA,
): Record<string, unknown> {
  const { listen, operator, upstreams, upstreamTemplates = [] } = config;
  const { hosted, notifications } = config;
  return describeSettings(schema, {
    ...config,
    listen: listen.length === 1 ? listen[0] : listen,
    operator: { ...operator, listen: operator.listen ?? false },
    upstreams: Object.fromEntries(
      [...upstreams, ...upstreamTemplates].map((upstream) => [
        upstream.name,
        describeUpstream(upstream),
      ]),
    ),
    hosted: Object.fromEntries(
      hosted.map((one) => [one.name, describeSettings(HOSTED_SCHEMA, one)]),
    ),
    notifications: notifications.map((one) => ({
      ...one,
      url: describeWebhook(one),
    })),
    access: config.access && withTokenServerKeys(config.access),
  });
}

/** Returns the origin of a URL: the rest may be secret. */
function describeWebhook({ url }: NotificationConfig): string {
  const { origin, href } = new URL(url.reveal());
  return href === `${origin}/` ? origin : `${origin}/${url.toString()}`;
}

function withTokenServerKeys(access: AccessConfig): object {
  if (access.tokenServer === undefined) return access;
  const { keys, ...tokenServer } = access.tokenServer;
  const key = keys.kind === "jwks" ? "jwksFile" : "certificateFile";
  return { ...access, tokenServer: { ...tokenServer, [key]: keys.file } };
}

/** Writes a described configuration as YAML. Loads the YAML library. */
export async function formatConfig(
  described: Readonly<Record<string, unknown>>,
): Promise<string> {
  const { stringify } = await import("yaml");
  return stringify(described, {
    aliasDuplicateObjects: false,
    lineWidth: 0,
  });
}

function describeUpstream(upstream: UpstreamConfig): Record<string, unknown> {
  const { endpoints, tls } = upstream;
  return describeSettings(UPSTREAM_SCHEMA, {
    ...upstream,
    endpoints: isTemplate(upstream.name) ? undefined : endpoints,
    credentials: upstream.credentials.map(describeCredential),
    access: "shared",
    proxy: describeProxy(upstream.proxy),
    tls: {
      ...tls,
      certificateFile: tls.clientCertificate?.certificateFile,
      keyFile: tls.clientCertificate?.keyFile,
    },
  });
}

/** Returns undefined for proxies of the environment, which are not part of the configuration. */
function describeProxy({ source, https }: ProxyConfig): string | undefined {
  if (source === "none") return "none";
  if (source === "environment" || https === undefined) return undefined;
  const url = new URL(https.reveal());
  if (url.username === "" && url.password === "") return url.href;
  url.username = "";
  url.password = "";
  return url.href.replace("//", `//${https.toString()}@`);
}

function describeCredential(
  credential: UpstreamCredential,
): Record<string, string> {
  if (!("password" in credential)) return { ...credential };
  const { username, password, passwordFile } = credential;
  return passwordFile === undefined
    ? { username, password: password.toString() }
    : { username, passwordFile };
}
