import { readHtpasswd } from "../../config/files/access-files.ts";
import type { AccessConfig } from "../../config/config.ts";
import { formatFlaw } from "../../config/fault.ts";
import { type FileWatch, watchFiles } from "../../config/files/file-watch.ts";
import { readTokenKeys } from "../../config/files/token-keys.ts";
import type { UpstreamRoutes } from "../../mirror/upstream-routes.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Credentials } from "./credentials.ts";
import type { Identity } from "./identity.ts";
import { createPasswordHasher } from "./password-hasher.ts";
import { Passwords } from "./passwords.ts";
import { Tokens } from "./tokens.ts";

export type Identification =
  | { readonly kind: "known"; readonly identity: Identity }
  /** No credentials. */
  | { readonly kind: "none" }
  | {
      readonly kind: "unknown";
      /** Only where there is such a user: a mistyped name may be a password. */
      readonly user: string | undefined;
    }
  /** Not looked at. */
  | { readonly kind: "limited"; readonly retryAfterMs: number };

/** Who has a password or a token here; files are taken over anew when they change. */
export interface KnownClients {
  identify(credentials: Credentials, address: string): Promise<Identification>;
  /** Looks at the files now. */
  check(): Promise<void>;
  /** Closes when those who are being looked at have their verdict. */
  retire(): Promise<void>;
  close(): Promise<void>;
}

const UNKNOWN: Identification = { kind: "unknown", user: undefined };

/** @throws Error where a file is no good */
export async function openKnownClients(options: {
  readonly config: AccessConfig;
  readonly routes: UpstreamRoutes;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<KnownClients> {
  const { config, routes, clock, log } = options;
  const hasher = createPasswordHasher();
  const passwords = new Passwords({ hasher, clock });
  const tokens =
    config.tokenServer === undefined
      ? undefined
      : new Tokens({
          config: config.tokenServer,
          canonicalName: (spelled) => canonicalName(routes, spelled),
          clock,
        });
  const watches: FileWatch[] = [];
  const unwatch = (): void => {
    for (const watch of watches) watch.close();
  };
  const close = async (): Promise<void> => {
    unwatch();
    await hasher.close();
  };
  try {
    const { htpasswdFile, tokenServer } = config;
    if (htpasswdFile !== undefined) {
      await follow(watches, htpasswdFile, log, async () => {
        const read = await readHtpasswd(htpasswdFile);
        if (!read.ok) throw new Error(formatFlaw(read));
        passwords.setHashes(read.hashes);
      });
    }
    if (tokens !== undefined && tokenServer !== undefined) {
      await follow(watches, tokenServer.keys.file, log, async () => {
        const read = await readTokenKeys(tokenServer.keys);
        if (!read.ok) throw new Error(formatFlaw(read));
        tokens.setKeys(read.keys);
      });
    }
  } catch (error) {
    await close();
    throw error;
  }

  return {
    async identify(credentials, address) {
      switch (credentials.kind) {
        case "none":
          return { kind: "none" };
        case "malformed":
          return UNKNOWN;
        case "token": {
          const identity = await tokens?.check(credentials.token);
          return identity === undefined ? UNKNOWN : { kind: "known", identity };
        }
        case "password": {
          if (config.htpasswdFile === undefined) return UNKNOWN;
          const { user, password } = credentials;
          const verdict = await passwords.check(user, password, address);
          switch (verdict.kind) {
            case "right":
              return { kind: "known", identity: { kind: "user", name: user } };
            case "wrong":
              return {
                kind: "unknown",
                user: passwords.isKnown(user) ? user : undefined,
              };
            case "limited":
              return verdict;
            default:
              return verdict satisfies never;
          }
        }
        default:
          return credentials satisfies never;
      }
    },
    check: async () => {
      await Promise.all(watches.map((watch) => watch.check()));
    },
    retire: async () => {
      unwatch();
      await hasher.retire();
    },
    close,
  };
}

/** Takes a file over, and again whenever it changes; a faulty one leaves what was. */
async function follow(
  watches: FileWatch[],
  file: string,
  log: Logger,
  takeOver: () => Promise<void>,
): Promise<void> {
  const watch = await watchFiles([file], async () => {
    try {
      await takeOver();
      log.info({ file }, "the file was read again");
    } catch (error) {
      log.error(
        { err: error, file },
        "the new file is no good and the old one stays",
      );
    }
  });
  watches.push(watch);
  await takeOver();
}

/** As of a request without any hint but its path. */
function canonicalName(
  routes: UpstreamRoutes,
  spelled: string,
): string | undefined {
  const none = { prefix: undefined, ns: undefined, host: undefined };
  const routed = routes.routeRepository(none, spelled);
  return routed.ok ? `${routed.upstream.name}/${routed.repository}` : undefined;
}
