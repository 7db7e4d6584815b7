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

/** What holds a part of the configuration of its own, and is told when that changes. */
export interface ReloadableParts {
  /** Undefined where TLS was off at the start, which needs a restart to change. */
  readonly tls: ServerTls | undefined;
  readonly access: Pick<AccessControl, "prepare">;
  readonly audit: AuditSwitch;
  readonly clientAddress: SwitchableClientAddress;
  readonly connections: Pick<BoundServers, "setLimits">;
  /** @returns whether anything is another than before */
  readonly replaceUpstreams: (
    upstreams: Config["upstreams"],
    templates: Config["upstreams"],
  ) => boolean;
  readonly setEviction: (eviction: Config["eviction"]) => void;
  readonly log: Logger;
  /** Undefined where the log is a test's own. */
  readonly logOutput: LogOutput | undefined;
}

/**
 * Takes another configuration into force. What can be refused comes first: nothing of a
 * configuration is taken over where a part of it can't be.
 *
 * @param setInForce what asks for the configuration at each use has the new one from then on
 * @returns the top-level keys that are another than before
 * @throws Error where nothing was taken over
 */
export async function applyConfig(
  parts: ReloadableParts,
  before: Config,
  next: Config,
  setInForce: (config: Config) => void,
): Promise<readonly string[]> {
  const { log } = parts;
  const changed: string[] = [];
  const differs = (key: keyof Config): boolean => {
    const isChanged = !isSame(before[key], next[key]);
    if (isChanged) changed.push(key);
    return isChanged;
  };

  const auditFile = next.audit?.file;
  const nextAudit = differs("audit")
    ? await openConfiguredAudit(auditFile, log)
    : undefined;
  // Whether there is TLS at all waits for a restart.
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
  // All at once: no request sees one part of the old and another of the new.
  setInForce(next);
  tls?.takeOver();
  access?.takeOver();
  const { upstreams, upstreamTemplates = [] } = next;
  if (parts.replaceUpstreams(upstreams, upstreamTemplates)) {
    changed.push("upstreams");
  }
  if (differs("eviction")) parts.setEviction(next.eviction);
  if (differs("trustedProxies")) {
    parts.clientAddress.trust(next.trustedProxies ?? []);
  }
  if (differs("limits")) parts.connections.setLimits(next.limits);
  // Read where they are used.
  differs("offline");
  differs("scrub");
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

/**
 * Where `access` has no word on who may come in, a certificate is the one way; else it is one of
 * several.
 */
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
      log.error({ err: error }, "audit");
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`audit.file: ${why}; a file that can be written to`, {
      cause: error,
    });
  }
}

/** Of parts without secrets: those are shown alike. */
function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
