import type { BoundServers } from "./connection-bounds.ts";
import type { Config } from "../config/config.ts";
import type {
  AccessControl,
  PreparedAccess,
} from "../http/client-auth/access-control.ts";
import type { SwitchableClientAddress } from "../http/server/client-address.ts";
import type {
  PreparedTls,
  ServerTls,
  ServerTlsSettings,
} from "../http/server/server-tls.ts";
import { type Audit, NO_AUDIT, openAudit } from "../telemetry/audit.ts";
import type { AuditSwitch } from "../telemetry/audit-switch.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { LogOutput } from "../telemetry/log-output.ts";
import { fingerprintOf } from "./config-fingerprint.ts";
import { messageOf } from "../telemetry/error-record.ts";

/** Parts that keep values of the configuration and must be updated by a reload. */
export interface ReloadableParts {
  /** Undefined if TLS was off at the start; only a restart changes that. */
  readonly tls: ServerTls | undefined;
  readonly access: Pick<AccessControl, "prepare">;
  readonly audit: AuditSwitch;
  readonly clientAddress: SwitchableClientAddress;
  readonly connections: Pick<BoundServers, "setLimits">;
  /** @throws Error if a name belongs to stored content of the other kind */
  readonly checkNames: (before: Config, next: Config) => Promise<void>;
  /** Routes new requests by a changed set of registries. @returns whether any upstream changed */
  readonly replaceRegistries: (
    registries: Pick<Config, "upstreams" | "upstreamTemplates" | "hosted">,
  ) => boolean;
  readonly setEviction: (eviction: Config["eviction"]) => void;
  readonly replaceNotifications: (endpoints: Config["notifications"]) => void;
  readonly log: Logger;
  /** Undefined if a test passed its own log. */
  readonly logOutput: LogOutput | undefined;
}

/**
 * Applies a changed configuration as a whole or not at all: the parts that may be rejected are
 * prepared first.
 *
 * @param setLive replaces the configuration for the code that reads it at each use
 * @returns the top-level keys whose values changed
 * @throws Error if the configuration was rejected; nothing has changed then
 */
export async function applyConfig(
  parts: ReloadableParts,
  before: Config,
  next: Config,
  setLive: (config: Config) => void,
): Promise<readonly string[]> {
  const { log } = parts;
  const changed: string[] = [];
  const differs = (key: keyof Config): boolean => {
    const isChanged = !isSame(before[key], next[key]);
    if (isChanged) changed.push(key);
    return isChanged;
  };

  await parts.checkNames(before, next);
  const auditFile = next.audit?.file;
  const nextAudit = differs("audit")
    ? await openConfiguredAudit(auditFile, log)
    : undefined;
  // TLS itself is switched on or off by a restart only.
  if (parts.tls !== undefined && next.tls !== undefined) differs("tls");
  let tls: PreparedTls | undefined;
  let access: PreparedAccess | undefined;
  try {
    const settings = tlsSettings(next);
    if (settings !== undefined && !isSame(tlsSettings(before), settings)) {
      tls = await parts.tls?.prepare(settings);
    }
    if (differs("access")) access = await parts.access.prepare(next.access);
  } catch (error) {
    tls?.abandon();
    await Promise.all([nextAudit?.close(), access?.abandon()]);
    throw error;
  }
  // Synchronously, so that no request sees parts of both configurations.
  setLive(next);
  tls?.apply();
  access?.apply();
  if (parts.replaceRegistries(next)) changed.push("upstreams");
  differs("hosted");
  if (differs("eviction")) parts.setEviction(next.eviction);
  if (differs("trustedProxies")) {
    parts.clientAddress.trust(next.trustedProxies ?? []);
  }
  if (differs("limits")) parts.connections.setLimits(next.limits);
  // The code that uses these reads them at each use.
  differs("offline");
  differs("scrub");
  differs("warm");
  if (
    fingerprintOf(before.notifications) !== fingerprintOf(next.notifications)
  ) {
    changed.push("notifications");
    parts.replaceNotifications(next.notifications);
  }
  if (nextAudit !== undefined) await parts.audit.replace(nextAudit, auditFile);
  if (differs("log")) {
    log.level = next.log.level;
    if (before.log.format !== next.log.format) {
      await parts.logOutput?.setFormat(next.log.format);
    }
  }
  if (before.operator.token?.reveal() !== next.operator.token?.reveal()) {
    changed.push("operator");
  }
  return changed;
}

/** Returns the TLS settings; without `access`, every client must present a certificate. */
export function tlsSettings({
  tls,
  access,
}: Config): ServerTlsSettings | undefined {
  if (tls === undefined) return undefined;
  return { config: tls, isCertificateRequired: access === undefined };
}

export async function openConfiguredAudit(
  file: string | undefined,
  log: Logger,
): Promise<Audit> {
  if (file === undefined) return NO_AUDIT;
  try {
    return await openAudit(file, (error) => {
      log.error({ err: error }, "could not write to the audit file");
    });
  } catch (error) {
    const why = messageOf(error);
    throw new Error(`audit.file: got ${why}; expected a writable file`, {
      cause: error,
    });
  }
}

/** Compares parts without secrets: JSON shows all secrets alike. */
function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
