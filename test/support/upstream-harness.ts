import { Readable } from "node:stream";
import type { UpstreamConfig } from "../../src/config/config.ts";
import {
  parseRepositoryName,
  parseTag,
  type Reference,
  type RepositoryName,
} from "../../src/oci/reference.ts";
import { type Clock, systemClock } from "../../src/telemetry/clock.ts";
import type { UpstreamClient } from "../../src/upstream/client.ts";
import {
  UpstreamError,
  type UpstreamErrorKind,
} from "../../src/wire/errors.ts";
import { createUpstreamClient } from "../../src/upstream/create-client.ts";
import type { ProbeSchedule } from "../../src/upstream/endpoint-probe.ts";
import type { Answer } from "../../src/wire/exchange.ts";
import type { ResolveName } from "../../src/wire/name-lookup.ts";
import type {
  UpstreamObserver,
  UpstreamResponseEvent,
} from "../../src/wire/observer.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { UPSTREAM_DEFAULTS } from "./upstream-defaults.ts";

/** Records every event. */
export class RecordingObserver implements UpstreamObserver {
  readonly responses: UpstreamResponseEvent[] = [];
  readonly endpoints: (readonly [endpoint: string, isUp: boolean])[] = [];
  readonly faults: (readonly [kind: UpstreamErrorKind, message: string])[] = [];
  readonly credentialFaults: (readonly [
    credential: string,
    message: string,
  ])[] = [];
  receivedBytes = 0;

  onResponse(event: UpstreamResponseEvent): void {
    this.responses.push(event);
  }
  onReceivedBytes(bytes: number): void {
    this.receivedBytes += bytes;
  }
  onEndpoint(endpoint: string, isUp: boolean): void {
    this.endpoints.push([endpoint, isUp]);
  }
  onFault(kind: UpstreamErrorKind, message: string): void {
    this.faults.push([kind, message]);
  }
  onCredentialFault(credential: string, message: string): void {
    this.credentialFaults.push([credential, message]);
  }
}

/** Returns the configuration of an upstream as the loader makes it, with short time-outs. */
export function upstreamConfig(
  endpoints: readonly string[],
  overrides: Partial<UpstreamConfig> = {},
): UpstreamConfig {
  return {
    ...UPSTREAM_DEFAULTS,
    name: "registry.example",
    isDefault: true,
    endpoints,
    connectTimeoutMs: 2_000,
    headersTimeoutMs: 2_000,
    idleTimeoutMs: 2_000,
    ...overrides,
  };
}

export interface TestClient {
  readonly client: UpstreamClient;
  readonly observer: RecordingObserver;
}

/** For tests that count requests, whose number must not depend on time. */
export const neverProbe: ProbeSchedule = () => () => {};

/** Creates a client that is closed with the test. */
export function startUpstreamClient(
  test: AfterTest,
  endpoints: readonly string[],
  overrides: Partial<UpstreamConfig> & {
    readonly clock?: Clock;
    readonly offline?: boolean;
    readonly resolveName?: ResolveName;
    /** Default: failed endpoints are not probed in the background. */
    readonly probeSchedule?: ProbeSchedule;
  } = {},
): TestClient {
  const {
    clock = systemClock,
    offline = false,
    resolveName,
    probeSchedule = neverProbe,
    ...config
  } = overrides;
  const observer = new RecordingObserver();
  const client = createUpstreamClient({
    config: upstreamConfig(endpoints, config),
    instanceId: "test",
    clock,
    observer,
    isOffline: () => offline,
    resolveName,
    probeSchedule,
  });
  releaseAfter(test, () => client.close());
  return { client, observer };
}

/** Answer of an upstream, without its body. */
export function upstreamAnswer(
  status: number,
  headers: Readonly<Record<string, string>>,
  url = "http://reg.example/",
): Answer {
  return {
    status,
    url: new URL(url),
    header: (name) => headers[name],
    body: Readable.from([]),
    patienceMs: 1_000,
  };
}

export function repositoryName(text: string): RepositoryName {
  const name = parseRepositoryName(text);
  if (name === undefined) throw new Error(`${text} is not a repository`);
  return name;
}

export function tagReference(text: string): Reference {
  const tag = parseTag(text);
  if (tag === undefined) throw new Error(`${text} is not a tag`);
  return { kind: "tag", tag };
}

/** Repository, tag and signal of tests to which it does not matter which. */
export const ALPINE = repositoryName("library/alpine");
export const TAG = tagReference("1");
export const SIGNAL = new AbortController().signal;

/** Returns the UpstreamError that a call threw. */
export async function upstreamErrorOf(
  call: Promise<unknown>,
): Promise<UpstreamError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof UpstreamError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}
