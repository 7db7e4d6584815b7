import { basename } from "node:path";
import type {
  DockerConfigCredential,
  HelperCredential,
  PasswordCredential,
  UpstreamCredential,
} from "../../config/config.ts";
import { Secret } from "../../config/config.ts";
import {
  type DockerConfig,
  dockerServers,
  helperServer,
  parseDockerConfig,
} from "../../config/files/docker-config.ts";
import {
  MAX_DOCKER_CONFIG_BYTES,
  MAX_PASSWORD_FILE_BYTES,
} from "../../config/files/upstream-files.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { askHelper, type HelperAnswer } from "./credential-helper.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { PolledFile } from "./polled-file.ts";
import { lifeOfSecret } from "./secret-life.ts";

/** Who the mirror is at an endpoint, at this moment. */
export interface Login {
  /** Empty where only an identity token is known. */
  readonly username: string;
  readonly secret: Secret;
  /** The secret is a refresh token of OAuth2, no password. */
  readonly isIdentityToken: boolean;
  /** Another one with each secret: for keys of caches, which must not hold the secret itself. */
  readonly id: string;
}

/** Where an endpoint's login comes from. It may change while the mirror runs. */
export interface CredentialSource {
  /**
   * The login in force; undefined where the source has none for this endpoint.
   *
   * @throws CredentialError where the source fails
   */
  read(): Promise<Login | undefined>;
  /** Looks again after the upstream refused that one; undefined where there is nothing newer. */
  readAgain(refused: Login): Promise<Login | undefined>;
}

/**
 * The credentials are at fault, not what was asked for with them: those of another account may do.
 * `isLocal` if they could not be read at all, for which the upstream is not to blame.
 */
export class CredentialError extends UpstreamError {
  constructor(
    message: string,
    place: {
      readonly upstream: string;
      readonly origin?: string;
      readonly status?: number;
      readonly isLocal?: boolean;
      readonly cause?: unknown;
    },
  ) {
    super("unauthorized", message, place);
    this.name = "CredentialError";
  }
}

/** Whether the mirror could not read its own credentials; nothing was asked of the upstream then. */
export function isOwnFault(error: UpstreamError): boolean {
  return error instanceof CredentialError && error.isLocal;
}

/** A helper that failed, or whose answer was refused, is left alone for so long. */
const HELPER_REST_MS = 30_000;
const MAX_NAME_LENGTH = 64;

/** What a credential is called in metrics and logs: a user, a file or a program. Unique among those given. */
export function credentialNames(
  credentials: readonly UpstreamCredential[],
): readonly string[] {
  const taken = new Set<string>();
  return credentials.map((credential) => {
    const base = nameOf(credential).slice(0, MAX_NAME_LENGTH);
    let name = base;
    for (let number = 2; taken.has(name); number++) name = `${base}#${number}`;
    taken.add(name);
    return name;
  });
}

export interface CredentialSourceOptions {
  readonly upstream: string;
  readonly endpoint: URL;
  readonly name: string;
  readonly clock: Clock;
}

export function createCredentialSource(
  credential: UpstreamCredential,
  options: CredentialSourceOptions,
): CredentialSource {
  if ("helper" in credential) return helperSource(credential, options);
  return "dockerConfigFile" in credential
    ? new DockerConfigSource(credential, options)
    : new PasswordSource(credential, options);
}

function nameOf(credential: UpstreamCredential): string {
  if ("helper" in credential) return basename(credential.helper);
  return "dockerConfigFile" in credential
    ? basename(credential.dockerConfigFile)
    : credential.username;
}

function helperSource(
  { helper }: HelperCredential,
  options: CredentialSourceOptions,
): HelperSource {
  return new HelperSource(helper, options);
}

/** Gives each new secret an id. */
class Logins {
  readonly #prefix: string;
  #count = 0;

  constructor({ endpoint, name }: CredentialSourceOptions) {
    this.#prefix = `${endpoint.origin} ${name}`;
  }

  make(login: Omit<Login, "id">): Login {
    this.#count += 1;
    return { ...login, id: `${this.#prefix} ${this.#count}` };
  }
}

class PasswordSource implements CredentialSource {
  readonly #username: string;
  readonly #logins: Logins;
  readonly #file: PolledFile<Secret> | undefined;
  #login: Login;

  constructor(
    { username, password, passwordFile }: PasswordCredential,
    options: CredentialSourceOptions,
  ) {
    this.#username = username;
    this.#logins = new Logins(options);
    this.#login = this.#make(password);
    this.#file =
      passwordFile === undefined
        ? undefined
        : new PolledFile(passwordFile, MAX_PASSWORD_FILE_BYTES, readPassword);
  }

  read(): Promise<Login> {
    return this.#look(false);
  }

  async readAgain(refused: Login): Promise<Login | undefined> {
    return unless(refused, await this.#look(true));
  }

  async #look(isForced: boolean): Promise<Login> {
    const secret = await this.#file?.read(isForced);
    if (
      secret !== undefined &&
      secret.reveal() !== this.#login.secret.reveal()
    ) {
      this.#login = this.#make(secret);
    }
    return this.#login;
  }

  #make(secret: Secret): Login {
    const username = this.#username;
    return this.#logins.make({ username, secret, isIdentityToken: false });
  }
}

class DockerConfigSource implements CredentialSource {
  readonly #options: CredentialSourceOptions;
  readonly #servers: readonly string[];
  readonly #logins: Logins;
  readonly #file: PolledFile<DockerConfig>;
  #login: Login | undefined;
  #helper:
    { readonly program: string; readonly source: HelperSource } | undefined;

  constructor(
    { dockerConfigFile }: DockerConfigCredential,
    options: CredentialSourceOptions,
  ) {
    this.#options = options;
    this.#servers = dockerServers(options.endpoint);
    this.#logins = new Logins(options);
    this.#file = new PolledFile(
      dockerConfigFile,
      MAX_DOCKER_CONFIG_BYTES,
      readDockerConfig,
    );
  }

  async read(): Promise<Login | undefined> {
    const config = await this.#config(false);
    const helper = this.#helperOf(config);
    return (await helper?.read()) ?? this.#own(config);
  }

  async readAgain(refused: Login): Promise<Login | undefined> {
    const config = await this.#config(true);
    const login =
      (await this.#helperOf(config)?.readAgain(refused)) ?? this.#own(config);
    return unless(refused, login);
  }

  async #config(isForced: boolean): Promise<DockerConfig> {
    const config = await this.#file.read(isForced);
    if (config !== undefined) return config;
    const { upstream, name } = this.#options;
    throw new CredentialError(`${name} can't be read`, {
      upstream,
      isLocal: true,
    });
  }

  /** A registry's own helper before the store; what the store lacks may still be in the file. */
  #helperOf(config: DockerConfig): HelperSource | undefined {
    const named = this.#servers
      .map((server) => config.helpers.get(server))
      .find((helper) => helper !== undefined);
    const suffix = named ?? config.store;
    if (suffix === undefined) return undefined;
    const program = `docker-credential-${suffix}`;
    if (this.#helper?.program !== program) {
      const source = new HelperSource(program, this.#options);
      this.#helper = { program, source };
    }
    return this.#helper.source;
  }

  #own(config: DockerConfig): Login | undefined {
    const found = this.#servers
      .map((server) => config.logins.get(server))
      .find((login) => login !== undefined);
    if (found === undefined) return undefined;
    const { username, secret, isIdentityToken } = found;
    if (
      this.#login?.username !== username ||
      this.#login.isIdentityToken !== isIdentityToken ||
      this.#login.secret.reveal() !== secret.reveal()
    ) {
      this.#login = this.#logins.make(found);
    }
    return this.#login;
  }
}

/** What a helper said, until it has to be asked again. */
interface Kept {
  readonly login: Login | undefined;
  readonly askedAtMs: number;
  readonly renewAtMs: number;
  readonly expiresAtMs: number;
  /** In words, where it failed. */
  readonly failure: string | undefined;
}

class HelperSource implements CredentialSource {
  readonly #program: string;
  readonly #options: CredentialSourceOptions;
  readonly #logins: Logins;
  #kept: Kept | undefined;
  #asking: Promise<Kept> | undefined;

  constructor(program: string, options: CredentialSourceOptions) {
    this.#program = program;
    this.#options = options;
    this.#logins = new Logins(options);
  }

  async read(): Promise<Login | undefined> {
    const nowMs = this.#options.clock.monotonicMs();
    const isFresh = this.#kept !== undefined && nowMs < this.#kept.renewAtMs;
    return this.#reveal(isFresh && this.#kept ? this.#kept : await this.#ask());
  }

  async readAgain(refused: Login): Promise<Login | undefined> {
    const kept = this.#kept;
    const nowMs = this.#options.clock.monotonicMs();
    if (kept?.login === refused && nowMs - kept.askedAtMs < HELPER_REST_MS) {
      return undefined;
    }
    return unless(
      refused,
      this.#reveal(
        kept?.login === refused
          ? await this.#ask()
          : (kept ?? (await this.#ask())),
      ),
    );
  }

  #reveal({ login, failure }: Kept): Login | undefined {
    if (failure === undefined) return login;
    const { upstream } = this.#options;
    throw new CredentialError(
      `the credential helper ${basename(this.#program)} ${failure}`,
      { upstream, isLocal: true },
    );
  }

  /** Once for all who wait. */
  #ask(): Promise<Kept> {
    this.#asking ??= askHelper(
      this.#program,
      helperServer(this.#options.endpoint),
    )
      .then((answer) => (this.#kept = this.#keep(answer)))
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  #keep(answer: HelperAnswer): Kept {
    const { clock } = this.#options;
    const askedAtMs = clock.monotonicMs();
    const old = this.#kept;
    if (answer.kind !== "login") {
      const renewAtMs = askedAtMs + HELPER_REST_MS;
      // One that fails to renew early leaves what is good until its end.
      if (
        answer.kind === "failed" &&
        old?.login !== undefined &&
        askedAtMs < old.expiresAtMs
      ) {
        return { ...old, askedAtMs, renewAtMs };
      }
      return {
        login: undefined,
        askedAtMs,
        renewAtMs,
        expiresAtMs: renewAtMs,
        failure: answer.kind === "failed" ? answer.reason : undefined,
      };
    }
    const { username, secret, isIdentityToken } = answer;
    const life = lifeOfSecret(secret.reveal(), clock.nowMs());
    const isSame =
      old?.login?.username === username &&
      old.login.isIdentityToken === isIdentityToken &&
      old.login.secret.reveal() === secret.reveal();
    return {
      login: isSame
        ? old.login
        : this.#logins.make({ username, secret, isIdentityToken }),
      askedAtMs,
      renewAtMs: askedAtMs + life.renewAfterMs,
      expiresAtMs: askedAtMs + life.expiresAfterMs,
      failure: undefined,
    };
  }
}

/** As at the start: what everybody may read is no secret, and the old one stays. */
function readPassword(text: string, isExposed: boolean): Secret | undefined {
  const line = text.replace(/\r?\n$/, "");
  return line === "" || isExposed ? undefined : new Secret(line);
}

/** With helpers alone it holds no secret. */
function readDockerConfig(
  text: string,
  isExposed: boolean,
): DockerConfig | undefined {
  const config = parseDockerConfig(text);
  return isExposed && config?.logins.size !== 0 ? undefined : config;
}

function unless(refused: Login, login: Login | undefined): Login | undefined {
  return login === undefined || login.id === refused.id ? undefined : login;
}
