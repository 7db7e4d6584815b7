import { readHtpasswd } from "../../config/files/access-files.ts";
import type { AccessConfig } from "../../config/config.ts";
import { formatFlaw } from "../../config/fault.ts";
import { type FileWatch, watchFiles } from "../../config/files/file-watch.ts";
import { readTokenKeys } from "../../config/files/token-keys.ts";
import { registryName, type Routes } from "../../routing/routes.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Credentials } from "./credentials.ts";
import type { Identity } from "./identity.ts";
import { createPasswordHasher } from "./password-hasher.ts";
import { Passwords } from "./passwords.ts";
import { Tokens } from "./tokens.ts";

export type Identification =
  | { readonly kind: "known"; readonly identity: Identity }
  /** The request has no credentials. */
  | { readonly kind: "none" }
  | {
      readonly kind: "unknown";
      /** Only if the user exists: a mistyped user name may be a password. */
      readonly user: string | undefined;
    }
  /** Too many failures; the credentials were not checked. */
  | { readonly kind: "limited"; readonly retryAfterMs: number };

/** Identifies clients by password or token. Reloads the files of both when they change. */
export interface KnownClients {
  identify(credentials: Credentials, address: string): Promise<Identification>;
  /** Closes after the running identifications have ended. */
  retire(): Promise<void>;
  close(): Promise<void>;
}

const UNKNOWN: Identification = { kind: "unknown", user: undefined };

/** @throws Error if a file is invalid */
export async function openKnownClients(options: {
  readonly config: AccessConfig;
  readonly routes: Routes;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<KnownClients> {
  const { config, routes, clock, log } = options;
  const hasher = createPasswordHasher();
  const passwords =
    config.htpasswdFile === undefined
      ? undefined
      : new Passwords({ hasher, clock });
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
    await loadFiles(config, passwords, tokens, (file, load) =>
      follow(watches, file, log, load),
    );
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
          if (passwords === undefined) return UNKNOWN;
          const { user, password } = credentials;
          return identifyUser(passwords, user, password, address);
        }
        default:
          return credentials satisfies never;
      }
    },
    retire: async () => {
      unwatch();
      await hasher.retire();
    },
    close,
  };
}

async function loadFiles(
  { htpasswdFile, tokenServer }: AccessConfig,
  passwords: Passwords | undefined,
  tokens: Tokens | undefined,
  followFile: (file: string, load: () => Promise<void>) => Promise<void>,
): Promise<void> {
  if (htpasswdFile !== undefined) {
    await followFile(htpasswdFile, async () => {
      const read = await readHtpasswd(htpasswdFile);
      if (!read.ok) throw new Error(formatFlaw(read));
      passwords?.setHashes(read.hashes);
    });
  }
  if (tokenServer !== undefined) {
    await followFile(tokenServer.keys.file, async () => {
      const read = await readTokenKeys(tokenServer.keys);
      if (!read.ok) throw new Error(formatFlaw(read));
      tokens?.setKeys(read.keys);
    });
  }
}

/** Loads a file, and again when it changes. An invalid new version is not used. */
async function follow(
  watches: FileWatch[],
  file: string,
  log: Logger,
  load: () => Promise<void>,
): Promise<void> {
  const watch = await watchFiles([file], async () => {
    try {
      await load();
      log.info({ file }, "reloaded a changed file of access");
    } catch (error) {
      log.error(
        { err: error, file },
        "rejected a changed file of access; the previous version stays in effect",
      );
    }
  });
  watches.push(watch);
  await load();
}

async function identifyUser(
  passwords: Passwords,
  user: string,
  password: string,
  address: string,
): Promise<Identification> {
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

/** The name that a request gets with no hint except its path. */
function canonicalName(routes: Routes, spelled: string): string | undefined {
  const none = { prefix: undefined, ns: undefined, host: undefined };
  const routed = routes.routeRepository(none, spelled);
  return routed.ok ? `${registryName(routed)}/${routed.repository}` : undefined;
}
