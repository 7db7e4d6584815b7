import { randomBytes } from "node:crypto";
import type { Config } from "../config/config.ts";
import type { Audit } from "../telemetry/audit.ts";
import { AuditSwitch } from "../telemetry/audit-switch.ts";
import { type Clock, type Schedule, systemClock } from "../telemetry/clock.ts";
import { createLogger, type Logger } from "../telemetry/logger.ts";
import { LogOutput } from "../telemetry/log-output.ts";
import { createMetrics, type Metrics } from "../telemetry/metrics.ts";
import { VERSION } from "../telemetry/version.ts";
import { openConfiguredAudit } from "./apply-config.ts";

/** Replacements that tests pass for parts of the process. */
export interface AppOverrides {
  readonly clock?: Clock;
  readonly log?: Logger;
  readonly audit?: Audit;
  /** How long a request waits for an upstream before it gets a stale answer. */
  readonly patienceMs?: number;
  /** Schedules the background probes of failed endpoints. */
  readonly probeSchedule?: Schedule;
  /** Schedules the steps of the background scrub. */
  readonly scrubSchedule?: Schedule;
  /** Schedules the background fetches of an index's children. */
  readonly childrenSchedule?: Schedule;
  /** Schedules the collection and the retention of hosted repositories. */
  readonly hostedSchedule?: Schedule;
  /** Schedules the warm jobs of the configuration, and the waits of warm jobs. */
  readonly warmSchedule?: Schedule;
  /** Schedules the upkeep of uploads. */
  readonly uploadSchedule?: Schedule;
}

/** Parts that every builder uses. */
export interface Foundation {
  /** The configuration of the start: addresses, TLS on or off, and the storage keep its values. */
  readonly config: Config;
  /** Holds the configuration that applies now; a reload replaces it. */
  readonly live: { config: Config };
  readonly overrides: AppOverrides;
  readonly clock: Clock;
  readonly log: Logger;
  /** Undefined if a test passed its own log. */
  readonly logOutput: LogOutput | undefined;
  readonly metrics: Metrics;
  readonly audit: AuditSwitch;
  /** Identifies this process in `Via` and in requests to upstreams. */
  readonly instanceId: string;
}

/** @throws Error if the audit file can't be opened */
export async function layFoundation(
  config: Config,
  overrides: AppOverrides,
): Promise<Foundation> {
  const logOutput =
    overrides.log === undefined
      ? await LogOutput.open(config.log.format)
      : undefined;
  const log =
    overrides.log ?? createLogger(config.log, logOutput ?? process.stdout);
  return {
    config,
    live: { config },
    overrides,
    clock: overrides.clock ?? systemClock,
    log,
    logOutput,
    metrics: createMetrics(VERSION),
    audit: new AuditSwitch(
      overrides.audit ?? (await openConfiguredAudit(config.audit?.file, log)),
    ),
    instanceId: randomBytes(4).toString("hex"),
  };
}
