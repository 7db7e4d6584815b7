import { type PasswordCredential, Secret } from "../../config/config.ts";
import { MAX_PASSWORD_FILE_BYTES } from "../../config/files/upstream-files.ts";
import {
  type CredentialSource,
  type CredentialSourceOptions,
  type Login,
  LoginHistory,
  newerThan,
} from "./login.ts";
import { PolledFile } from "./polled-file.ts";

/** A user and a password from the configuration or from a file, which is read again when it changes. */
export class PasswordSource implements CredentialSource {
  readonly #credential: PasswordCredential;
  readonly #logins: LoginHistory;
  readonly #file: PolledFile<Secret> | undefined;

  constructor(
    credential: PasswordCredential,
    options: CredentialSourceOptions,
  ) {
    this.#credential = credential;
    this.#logins = new LoginHistory(options);
    const { passwordFile } = credential;
    this.#file =
      passwordFile === undefined
        ? undefined
        : new PolledFile(passwordFile, MAX_PASSWORD_FILE_BYTES, parsePassword);
  }

  read(): Promise<Login> {
    return this.#read(false);
  }

  async readAgain(refused: Login): Promise<Login | undefined> {
    return newerThan(refused, await this.#read(true));
  }

  async #read(isForced: boolean): Promise<Login> {
    const { username, password } = this.#credential;
    const secret = (await this.#file?.read(isForced)) ?? password;
    return this.#logins.note({ username, secret, isIdentityToken: false });
  }
}

/** As at the start: a file that every user may read is refused, and the previous password stays. */
function parsePassword(text: string, isExposed: boolean): Secret | undefined {
  const line = text.replace(/\r?\n$/, "");
  return line === "" || isExposed ? undefined : new Secret(line);
}
