import type { IncomingMessage } from "node:http";
import { LRUCache } from "lru-cache";
import type { AccessAction, AccessConfig } from "../../config/config.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { Routes } from "../../routing/routes.ts";
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
import { hasForeignOrigin } from "../server/loopback.ts";
import {
  createOpenAccess,
  explainOpenRefusal,
  registryOf,
} from "./open-access.ts";
import {
  createPolicy,
  type Policy,
  type RepositoryRight,
  type Right,
} from "./policy.ts";
import {
  isMirroredRead,
  isWriting,
  type RequestedRoute,
  requiredRight,
} from "./required-right.ts";

/** An admitted request. */
export interface Admission {
  /** For the log; undefined if the client did not identify itself. */
  readonly user: string | undefined;
  /** Whether the catalog may list a repository, given as `registry/repository`. */
  readonly maySee: (name: string) => boolean;
  /**
   * Whether the client has another right too: to push to the repository that it reads, or to pull
   * from the one that it mounts a blob from.
   *
   * @param name `registry/repository`, canonical
   */
  readonly may: (action: AccessAction, name: string) => boolean;
}

/**
 * - `denied`: the client may use the server, but not this repository. The response to a read is the
 *   same as for missing content; the response to a write is `refusal`.
 */
export type Judgement =
  | ({ readonly kind: "admitted" } & Admission)
  | {
      readonly kind: "denied";
      /** As in {@link Admission}. */
      readonly user: string | undefined;
      /** Undefined for reads. */
      readonly refusal: RegistryError | undefined;
    };

/** Authorises every request of the registry API. */
export interface AccessControl {
  /** Responses may differ between clients: shared caches must not store them. */
  readonly isRestricting: boolean;
  /** Rules are configured: a right to read one repository does not imply another. */
  readonly hasRules: boolean;
  /**
   * Judges a request before any lookup. Admits every read if `access` is not configured.
   *
   * @param routes the routes that the request is answered with
   * @returns synchronously if no credentials have to be checked
   * @throws AccessRefusal if the client must authenticate, or has failed to too often
   */
  judge(
    request: IncomingMessage,
    requested: RequestedRoute,
    routes: Routes,
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

/** Of reads from mirrored repositories while there is no `access`: one object for all of them. */
const ADMITTED: Judgement = {
  kind: "admitted",
  user: undefined,
  maySee: () => true,
  may: (action) => action === "pull",
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
  const { clock, log, audit, clientAddress } = options;
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
    judge: (request, requested, routes) => {
      if (gate === undefined && isMirroredRead(request, requested, routes)) {
        return ADMITTED;
      }
      const right = requiredRight(request, requested, routes);
      if (isWriting(request, right) && hasForeignOrigin(request)) {
        return denied(undefined, "the request was sent by another web page");
      }
      return gate === undefined
        ? judgeOpen(right, request, routes)
        : judge(gate, right, {
            request,
            address: clientAddress(request),
            routes,
            log,
            audit,
            onLimited,
          });
    },
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

/** Judges a request while there is no `access`. */
function judgeOpen(
  right: Right,
  request: IncomingMessage,
  routes: Routes,
): Judgement {
  if (right.kind !== "repository") return ADMITTED;
  const { action, name } = right;
  const rights = createOpenAccess(request, routes);
  return rights.may(action, name)
    ? {
        kind: "admitted",
        user: undefined,
        maySee: () => true,
        may: (another, other) => rights.may(another, other),
      }
    : denied(undefined, explainOpenRefusal(routes, name));
}

interface Attempt {
  readonly request: IncomingMessage;
  readonly address: string;
  readonly routes: Routes;
  readonly log: Logger;
  readonly audit: Audit;
  readonly onLimited: (address: string) => void;
}

async function judge(
  gate: Gate,
  right: Right,
  attempt: Attempt,
): Promise<Judgement> {
  const { policy, config } = gate;
  const { request, address, routes } = attempt;
  const isAnonymousAllowed =
    gate.isAnonymousAllowedFrom(address) || hasCertificate(request);
  // Credentials are not checked if anonymous rights suffice.
  if (
    isAnonymousAllowed &&
    !dependsOnIdentity(right, request) &&
    policy(ANONYMOUS, right)
  ) {
    return admit(undefined, routes, (one) => policy(ANONYMOUS, one));
  }
  const isWrite = right.kind === "repository" && right.action !== "pull";
  const identity = await identify(
    gate,
    right,
    // Anonymous rights do not suffice for this write.
    isAnonymousAllowed && !isWrite,
    attempt,
  );
  const has = (one: Right): boolean =>
    policy(identity, one) || (isAnonymousAllowed && policy(ANONYMOUS, one));
  if (has(right)) return admit(nameOf(identity), routes, has);
  // A token grants one scope. The challenge names the scope that the client needs.
  if (lacksGrant(identity, right) && (isWrite || !isAnonymousAllowed)) {
    throw unauthorized(
      formatChallenge(config.tokenServer, right, "insufficient_scope"),
    );
  }
  return denied(
    nameOf(identity),
    isWrite ? explainRefusal(config, right) : undefined,
  );
}

/**
 * Returns who the client is. An unknown client is anonymous if that is allowed.
 *
 * @throws AccessRefusal if it is not allowed
 */
async function identify(
  { config, clients }: Gate,
  right: Right,
  mayBeAnonymous: boolean,
  { request, address, log, audit, onLimited }: Attempt,
): Promise<Identity> {
  const credentials = parseAuthorization(request.headers.authorization);
  const found = await clients.identify(credentials, address);
  if (found.kind === "known") return found.identity;
  if (mayBeAnonymous) return ANONYMOUS;
  const reason = credentials.kind === "token" ? "token" : "password";
  if (found.kind === "limited") {
    onLimited(address);
    throw tooManyLogIns(found.retryAfterMs);
  }
  if (found.kind === "unknown") {
    const { user } = found;
    audit.record({ event: "login-failed", client: address, user, reason });
    log.warn({ client: address, user }, "failed log-in of a client");
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

/**
 * Whether the answer depends on who the client is, even if an anonymous one may have it: the catalog,
 * and a `HEAD` of hosted content, after which a client with the right to push relies on the content.
 */
function dependsOnIdentity(
  right: Right,
  { method, headers }: IncomingMessage,
): boolean {
  if (right.kind === "catalog") return true;
  return (
    right.kind === "repository" &&
    right.isHosted &&
    method === "HEAD" &&
    headers.authorization !== undefined
  );
}

function admit(
  user: string | undefined,
  routes: Routes,
  has: (right: Right) => boolean,
): Judgement {
  return {
    kind: "admitted",
    user,
    maySee: (name) => has({ kind: "catalog-entry", name }),
    may: (action, name) => {
      const isHosted = routes.findHosted(registryOf(name)) !== undefined;
      return has({ kind: "repository", action, name, isHosted });
    },
  };
}

/** @param reason why a write is refused; undefined for a read. Engines show only the message. */
function denied(
  user: string | undefined,
  reason: string | undefined,
): Judgement {
  const refusal =
    reason === undefined
      ? undefined
      : new RegistryError("DENIED", { message: reason, detail: reason });
  return { kind: "denied", user, refusal };
}

function explainRefusal(
  { rules }: AccessConfig,
  { action, isHosted }: RepositoryRight,
): string {
  if (rules.length > 0) {
    return `no rule of access permits this client the action ${action} here`;
  }
  return isHosted
    ? `this client may not ${action} here`
    : "deleting from a mirrored repository needs a rule of access with the action delete";
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
