import type { DockerConfigCredential } from "../../config/config.ts";
import {
  type DockerConfig,
  dockerServers,
  parseDockerConfig,
} from "../../config/files/docker-config.ts";
import { MAX_DOCKER_CONFIG_BYTES } from "../../config/files/upstream-files.ts";
import { HelperSource } from "./helper-source.ts";
import {
  CredentialError,
  type CredentialSource,
  type CredentialSourceOptions,
  type Login,
  LoginHistory,
  newerThan,
} from "./login.ts";
import { PolledFile } from "./polled-file.ts";

/** A Docker `config.json`, which is read again when it changes, and the helpers that it names. */
export class DockerConfigSource implements CredentialSource {
  readonly #options: CredentialSourceOptions;
  readonly #servers: readonly string[];
  readonly #logins: LoginHistory;
  readonly #file: PolledFile<DockerConfig>;
  #helper:
    { readonly program: string; readonly source: HelperSource } | undefined;

  constructor(
    { dockerConfigFile }: DockerConfigCredential,
    options: CredentialSourceOptions,
  ) {
    this.#options = options;
    this.#servers = dockerServers(options.endpoint);
    this.#logins = new LoginHistory(options);
    this.#file = new PolledFile(
      dockerConfigFile,
      MAX_DOCKER_CONFIG_BYTES,
      parseConfig,
    );
  }

  async read(): Promise<Login | undefined> {
    const config = await this.#config(false);
    return (await this.#helperOf(config)?.read()) ?? this.#loginIn(config);
  }

  async readAgain(refused: Login): Promise<Login | undefined> {
    const config = await this.#config(true);
    const login =
      (await this.#helperOf(config)?.readAgain(refused)) ??
      this.#loginIn(config);
    return newerThan(refused, login);
  }

  async #config(isForced: boolean): Promise<DockerConfig> {
    const config = await this.#file.read(isForced);
    if (config !== undefined) return config;
    const { upstream, name } = this.#options;
    throw new CredentialError(`${name} cannot be read`, {
      upstream,
      isLocal: true,
    });
  }

  /** A helper for the registry goes before the store; the file may hold a login that the store lacks. */
  #helperOf(config: DockerConfig): HelperSource | undefined {
    const suffix = this.#find(config.helpers) ?? config.store;
    if (suffix === undefined) return undefined;
    const program = `docker-credential-${suffix}`;
    if (this.#helper?.program !== program) {
      const source = new HelperSource(program, this.#options);
      this.#helper = { program, source };
    }
    return this.#helper.source;
  }

  #loginIn(config: DockerConfig): Login | undefined {
    const found = this.#find(config.logins);
    return found && this.#logins.note(found);
  }

  #find<T>(byServer: ReadonlyMap<string, T>): T | undefined {
    return this.#servers
      .map((server) => byServer.get(server))
      .find((found) => found !== undefined);
  }
}

/** A file that every user may read is refused, unless it holds no secret but only names helpers. */
function parseConfig(
  text: string,
  isExposed: boolean,
): DockerConfig | undefined {
  const config = parseDockerConfig(text);
  return isExposed && config?.logins.size !== 0 ? undefined : config;
}
