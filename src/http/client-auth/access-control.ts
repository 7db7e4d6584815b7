import type { IncomingMessage } from "node:http";
import { LRUCache } from "lru-cache";
import type { AccessConfig } from "../../config/config.ts";
import type { DistributionPath } from "../../oci/path.ts";
import {
  registryName,
  type RouteHints,
  type Routes,
} from "../../routing/routes.ts";
import type { Audit } from "../../telemetry/audit.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { clip, type Logger } from "../../telemetry/logger.ts";
import { tooManyLogIns, unauthorized } from "./access-refusal.ts";
import { formatChallenge } from "./challenge.ts";
import { parseAuthorization } from "./credentials.ts";
import { ANONYMOUS, type Identity } from "./identity.ts";
import type { KnownClients } from "./known-clients.ts";
import type { ClientAddress } from "../server/client-address.ts";
import { compileNetworks, type NetworkMatcher } from "./networks.ts";
import { createPolicy, type Policy, type Right } from "./policy.ts";
import { ROUTE_RIGHTS } from "./route-rights.ts";

/** An admitted request. */
export interface Admission {
  /** For the log; undefined if the client did not identify itself. */
  readonly user: string | undefined;
  /** Whether the catalog may list a repository, given as `upstream/repository`. */
  readonly maySee: (name: string) => boolean;
}

/**
 * - `denied`: the client may use the mirror, but not this repository. The response is the same as
 *   for missing content.
 */
export type Judgement =
  | ({ readonly kind: "admitted" } & Admission)
  | {
      readonly kind: "denied";
      /** As in {@link Admission}. */
      readonly user: string | undefined;
    };

/** Authorises every request of the registry API. */
export interface AccessControl {
  /** Responses may differ between clients: shared caches must not store them. */
  readonly isRestricting: boolean;
  /** Rules are configured: a right to read one repository does not imply another. */
  readonly hasRules: boolean;
  /**
   * Judges a request before any lookup. Admits every request if `access` is not configured.
   *
   * @returns synchronously if no credentials have to be checked
   * @throws AccessRefusal if the client must authenticate, or has failed to too often
   */
  judge(
    request: IncomingMessage,
    path: DistributionPath,
  ): Judgement | Promise<Judgement>;
  /**
   * Opens the files of another configuration. Until it is applied, requests are judged by the
   * current one.
   *
   * @throws Error if one of the files is invalid; the current configuration stays in effect
   */
  prepare(config: AccessConfig | undefined): Promise<PreparedAccess>;
  close(): Promise<void>;
}

/** Another configuration of `access`. The caller calls exactly one of the methods. */
export interface PreparedAccess {
  /** Replaces the current configuration before it returns. */
  apply(): void;
  /** Closes the files because another part of the new configuration was rejected. */
  abandon(): Promise<void>;
}

interface Gate {
  readonly config: AccessConfig;
  readonly policy: Policy;
  readonly isAnonymousAllowedFrom: NetworkMatcher;
  readonly clients: KnownClients;
}

const ADMITTED: Judgement = {
  kind: "admitted",
  user: undefined,
  maySee: () => true,
};
/** At most one audit line for each rate-limited client in this time. */
const LIMITED_LINE_EVERY_MS = 10_000;

export interface AccessControlOptions {
  readonly config: AccessConfig | undefined;
  readonly routes: Routes;
  readonly clock: Clock;
  readonly log: Logger;
  readonly audit: Audit;
  readonly clientAddress: ClientAddress;
}

/** @throws Error if a file of users or keys is invalid */
export async function openAccessControl(
  options: AccessControlOptions,
): Promise<AccessControl> {
  const { routes, clock, log, audit, clientAddress } = options;
  let gate = await openGate(options.config, options);
  const retiring = new Set<KnownClients>();
  // Rejected attempts are not checked: one audit line says as much as a thousand.
  const limited = new LRUCache<string, true>({
    max: 1_000,
    ttl: LIMITED_LINE_EVERY_MS,
    perf: { now: () => clock.monotonicMs() },
  });
  const onLimited = (client: string): void => {
    if (limited.has(client)) return;
    limited.set(client, true);
    audit.record({ event: "login-failed", client, reason: "limited" });
  };

  return {
    get isRestricting() {
      return gate !== undefined;
    },
    get hasRules() {
      return gate !== undefined && gate.config.rules.length > 0;
    },
    judge: (request, path) =>
      gate === undefined
        ? ADMITTED
        : judge(gate, rightOf(routes, request, path), {
            request,
            address: clientAddress(request),
            log,
            audit,
            onLimited,
          }),
    prepare: async (config) => {
      const next = await openGate(config, options);
      return {
        apply: () => {
          const before = gate?.clients;
          gate = next;
          if (before === undefined) return;
          retiring.add(before);
          void before.retire().finally(() => retiring.delete(before));
        },
        abandon: async () => {
          await next?.clients.close();
        },
      };
    },
    close: async () => {
      const clients = gate === undefined ? [] : [gate.clients];
      await Promise.all([...clients, ...retiring].map((one) => one.close()));
    },
  };
}

/** Loads the users and keys of a configuration; undefined if `access` is not configured. */
async function openGate(
  config: AccessConfig | undefined,
  { routes, clock, log }: AccessControlOptions,
): Promise<Gate | undefined> {
  if (config === undefined) return undefined;
  const { anonymous, anonymousNetworks, rules } = config;
  const isInNetwork = compileNetworks(anonymousNetworks);
  // Imported on demand: a mirror without `access` never loads bcrypt and jose.
  const { openKnownClients } = await import("./known-clients.ts");
  return {
    config,
    policy: createPolicy(rules),
    isAnonymousAllowedFrom: (address) =>
      anonymous === "pull" &&
      (anonymousNetworks.length === 0 || isInNetwork(address)),
    clients: await openKnownClients({ config, routes, clock, log }),
  };
}

/**
 * Returns the right that a request needs. A name that maps to no upstream needs `enter` only: there
 * is no content to protect, and the route responds with 404.
 */
function rightOf(
  routes: Routes,
  request: IncomingMessage,
  { prefix, ns, target }: DistributionPath,
): Right {
  const right = ROUTE_RIGHTS[target.kind];
  if (right === "enter" || right === "catalog") return { kind: right };
  if (right !== "pull" || !("repository" in target)) {
    throw new TypeError(
      `got a ${target.kind} request; expected a route with a right`,
    );
  }
  // The response is 405, whether the content exists or not.
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { kind: "enter" };
  }
  const hints: RouteHints = { prefix, ns, host: request.headers.host };
  const routed = routes.routeRepository(hints, target.repository);
  return routed.ok
    ? {
        kind: "repository",
        action: right,
        name: `${registryName(routed)}/${routed.repository}`,
      }
    : { kind: "enter" };
}

async function judge(
  gate: Gate,
  right: Right,
  attempt: {
    readonly request: IncomingMessage;
    readonly address: string;
    readonly log: Logger;
    readonly audit: Audit;
    readonly onLimited: (address: string) => void;
  },
): Promise<Judgement> {
  const { policy, clients, config } = gate;
  const { request, address, log, audit } = attempt;
  const isAnonymousAllowed =
    gate.isAnonymousAllowedFrom(address) || hasCertificate(request);
  // Credentials are not checked if anonymous rights suffice. The catalog depends on the identity.
  if (
    isAnonymousAllowed &&
    right.kind !== "catalog" &&
    policy(ANONYMOUS, right)
  ) {
    return ADMITTED;
  }
  const credentials = parseAuthorization(request.headers.authorization);
  const found = await clients.identify(credentials, address);
  if (found.kind !== "known" && !isAnonymousAllowed) {
    const reason = credentials.kind === "token" ? "token" : "password";
    if (found.kind === "limited") {
      attempt.onLimited(address);
      throw tooManyLogIns(found.retryAfterMs);
    }
    if (found.kind === "unknown") {
      const { user } = found;
      audit.record({ event: "login-failed", client: address, user, reason });
      log.warn(
        { client: address, user: found.user },
        "failed log-in of a client",
      );
    }
    const isToken = credentials.kind === "token";
    throw unauthorized(
      formatChallenge(
        config.tokenServer,
        right,
        isToken ? "invalid_token" : undefined,
      ),
    );
  }
  const identity = found.kind === "known" ? found.identity : ANONYMOUS;
  const has = (one: Right): boolean =>
    policy(identity, one) || (isAnonymousAllowed && policy(ANONYMOUS, one));
  if (has(right)) {
    return {
      kind: "admitted",
      user: nameOf(identity),
      maySee: (name) => has({ kind: "catalog-entry", name }),
    };
  }
  // A token grants one scope. The challenge names the scope that the client needs.
  if (lacksGrant(identity, right) && !isAnonymousAllowed) {
    throw unauthorized(
      formatChallenge(config.tokenServer, right, "insufficient_scope"),
    );
  }
  return { kind: "denied", user: nameOf(identity) };
}

/** Whether the client showed a certificate signed by an authority of `tls.clientCaFile`. */
function hasCertificate({ socket }: IncomingMessage): boolean {
  return "authorized" in socket && socket.authorized === true;
}

/** The name for the log, clipped: a token's name is text from its server. */
function nameOf(identity: Identity): string | undefined {
  return identity.kind === "anonymous" ? undefined : clip(identity.name);
}

function lacksGrant(identity: Identity, right: Right): boolean {
  if (identity.kind !== "token") return false;
  const { catalog, repositories } = identity.grants;
  return right.kind === "repository"
    ? repositories.get(right.name)?.has(right.action) !== true
    : !catalog;
}
