import type { IncomingMessage } from "node:http";
import { LRUCache } from "lru-cache";
import type { AccessConfig } from "../../config/config.ts";
import type { DistributionPath } from "../../oci/path.ts";
import type {
  RouteHints,
  UpstreamRoutes,
} from "../../mirror/upstream-routes.ts";
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

/** A request that is let through. */
export interface Admission {
  /** For the log; undefined where the client is nobody in particular. */
  readonly user: string | undefined;
  /** Whether the catalog may tell of a repository, by `upstream/repository`. */
  readonly maySee: (name: string) => boolean;
}

/**
 * - `denied`: somebody who is let in, but not there. It is answered as what is not there is.
 */
export type Judgement =
  | ({ readonly kind: "admitted" } & Admission)
  | {
      readonly kind: "denied";
      /** As in {@link Admission}. */
      readonly user: string | undefined;
    };

/** Stands in front of every route. */
export interface AccessControl {
  /** Somebody may get other answers than somebody else: what is between must not share them. */
  readonly isRestricting: boolean;
  /** Rules exist: who may read one repository need not be allowed to read its neighbour. */
  readonly hasRules: boolean;
  /**
   * Judges a request before anything is looked up for it. Where nothing is configured everybody
   * is admitted.
   *
   * @returns at once where nobody's credentials have to be looked at
   * @throws AccessRefusal for a client that must say who it is, or failed to too often
   */
  judge(
    request: IncomingMessage,
    path: DistributionPath,
  ): Judgement | Promise<Judgement>;
  /** Looks at the files of users and keys now. */
  check(): Promise<void>;
  /**
   * Makes another configuration ready. Who is being judged meanwhile is judged by the old one.
   *
   * @throws Error where its files are no good: the old one stays
   */
  prepare(config: AccessConfig | undefined): Promise<PreparedAccess>;
  close(): Promise<void>;
}

/** One of the two is called. */
export interface PreparedAccess {
  /** Is in force when it returns. */
  takeOver(): void;
  /** Something else of the configuration was refused. */
  abandon(): Promise<void>;
}

interface Gate {
  readonly config: AccessConfig;
  readonly policy: Policy;
  readonly isAnonymousAllowedFrom: NetworkMatcher;
  readonly clients: KnownClients;
}

const EVERYBODY: Judgement = {
  kind: "admitted",
  user: undefined,
  maySee: () => true,
};
/** How often it is recorded that somebody is over the limit. */
const LIMITED_EVERY_MS = 10_000;

/** @throws Error where a file of users or keys is no good */
export async function openAccessControl(options: {
  readonly config: AccessConfig | undefined;
  readonly routes: UpstreamRoutes;
  readonly clock: Clock;
  readonly log: Logger;
  readonly audit: Audit;
  readonly clientAddress: ClientAddress;
}): Promise<AccessControl> {
  const { routes, clock, log, audit, clientAddress } = options;
  const openGate = async (
    config: AccessConfig | undefined,
  ): Promise<Gate | undefined> => {
    if (config === undefined) return undefined;
    const { anonymous, anonymousNetworks, rules } = config;
    const isInNetwork = compileNetworks(anonymousNetworks);
    // A mirror for everybody never loads what knows users.
    const { openKnownClients } = await import("./known-clients.ts");
    return {
      config,
      policy: createPolicy(rules),
      isAnonymousAllowedFrom: (address) =>
        anonymous === "pull" &&
        (anonymousNetworks.length === 0 || isInNetwork(address)),
      clients: await openKnownClients({ config, routes, clock, log }),
    };
  };
  let gate = await openGate(options.config);
  const retiring = new Set<KnownClients>();
  // Of a thousand attempts that are not even looked at one line tells as much as all of them.
  const limited = new LRUCache<string, true>({
    max: 1_000,
    ttl: LIMITED_EVERY_MS,
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
        ? EVERYBODY
        : judge(gate, rightOf(routes, request, path), {
            request,
            address: clientAddress(request),
            log,
            audit,
            onLimited,
          }),
    check: async () => {
      await gate?.clients.check();
    },
    prepare: async (config) => {
      const next = await openGate(config);
      return {
        takeOver: () => {
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

/**
 * What the request needs. A name that leads to no upstream needs no more than to enter: nothing is
 * behind it, and the route tells so.
 */
function rightOf(
  routes: UpstreamRoutes,
  request: IncomingMessage,
  { prefix, ns, target }: DistributionPath,
): Right {
  const right = ROUTE_RIGHTS[target.kind];
  if (right === "enter" || right === "catalog") return { kind: right };
  if (right !== "pull" || !("repository" in target)) {
    throw new TypeError(`no right is written for ${target.kind}`);
  }
  // Answered 405 whatever is there.
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { kind: "enter" };
  }
  const hints: RouteHints = { prefix, ns, host: request.headers.host };
  const routed = routes.routeRepository(hints, target.repository);
  return routed.ok
    ? {
        kind: "repository",
        action: right,
        name: `${routed.upstream.name}/${routed.repository}`,
      }
    : { kind: "enter" };
}

async function judge(
  gate: Gate,
  right: Right,
  asked: {
    readonly request: IncomingMessage;
    readonly address: string;
    readonly log: Logger;
    readonly audit: Audit;
    readonly onLimited: (address: string) => void;
  },
): Promise<Judgement> {
  const { policy, clients, config } = gate;
  const { request, address, log, audit } = asked;
  const isAnonymousAllowed =
    gate.isAnonymousAllowedFrom(address) || hasCertificate(request);
  // Whom everybody's right is enough for need not say who they are; the catalog is for each its own.
  if (
    isAnonymousAllowed &&
    right.kind !== "catalog" &&
    policy(ANONYMOUS, right)
  ) {
    return EVERYBODY;
  }
  const credentials = parseAuthorization(request.headers.authorization);
  const found = await clients.identify(credentials, address);
  if (found.kind !== "known" && !isAnonymousAllowed) {
    const reason = credentials.kind === "token" ? "token" : "password";
    if (found.kind === "limited") {
      asked.onLimited(address);
      throw tooManyLogIns(found.retryAfterMs);
    }
    if (found.kind === "unknown") {
      const { user } = found;
      audit.record({ event: "login-failed", client: address, user, reason });
      log.warn({ client: address, user: found.user }, "failed log-in");
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
  // A token is for what was asked for with it: the client is told what to ask for.
  if (lacksGrant(identity, right) && !isAnonymousAllowed) {
    throw unauthorized(
      formatChallenge(config.tokenServer, right, "insufficient_scope"),
    );
  }
  return { kind: "denied", user: nameOf(identity) };
}

/** Shown at the handshake, and signed by an authority of `tls.clientCaFile`. */
function hasCertificate({ socket }: IncomingMessage): boolean {
  return "authorized" in socket && socket.authorized === true;
}

/** A token's is its server's word: as it may stand in a log. */
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
