import { basename } from "node:path";
import { helperServer } from "../../config/files/docker-config.ts";
import { askHelper, type HelperAnswer } from "./credential-helper.ts";
import {
  CredentialError,
  type CredentialSource,
  type CredentialSourceOptions,
  type Login,
  LoginHistory,
  newerThan,
} from "./login.ts";
import { lifeOfSecret } from "./secret-life.ts";

/** A helper that failed, or whose login was refused, is not run again for this long. */
const HELPER_REST_MS = 30_000;

/** The last answer of a helper. */
interface Kept {
  readonly login: Login | undefined;
  readonly askedAtMs: number;
  readonly renewAtMs: number;
  readonly expiresAtMs: number;
  /** A text for the log if the helper failed. */
  readonly failure: string | undefined;
}

/** A credential helper. Its answer is kept for a part of the secret's lifetime. */
export class HelperSource implements CredentialSource {
  readonly #program: string;
  readonly #options: CredentialSourceOptions;
  readonly #logins: LoginHistory;
  #kept: Kept | undefined;
  #asking: Promise<Kept> | undefined;

  constructor(program: string, options: CredentialSourceOptions) {
    this.#program = program;
    this.#options = options;
    this.#logins = new LoginHistory(options);
  }

  async read(): Promise<Login | undefined> {
    const kept = this.#kept;
    const nowMs = this.#options.clock.monotonicMs();
    const isFresh = kept !== undefined && nowMs < kept.renewAtMs;
    return this.#loginOf(isFresh ? kept : await this.#ask());
  }

  async readAgain(refused: Login): Promise<Login | undefined> {
    const kept = this.#kept;
    const isRefused = kept?.login === refused;
    const nowMs = this.#options.clock.monotonicMs();
    if (isRefused && kept && nowMs - kept.askedAtMs < HELPER_REST_MS) {
      return undefined;
    }
    const latest = kept === undefined || isRefused ? await this.#ask() : kept;
    return newerThan(refused, this.#loginOf(latest));
  }

  #loginOf({ login, failure }: Kept): Login | undefined {
    if (failure === undefined) return login;
    const { upstream } = this.#options;
    throw new CredentialError(
      `the credential helper ${basename(this.#program)} ${failure}`,
      { upstream, isLocal: true },
    );
  }

  /** Runs the helper once for all callers that wait. */
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
    if (answer.kind !== "login") return this.#keepWithout(answer, askedAtMs);
    const life = lifeOfSecret(answer.secret.reveal(), clock.nowMs());
    return {
      login: this.#logins.note(answer),
      askedAtMs,
      renewAtMs: askedAtMs + life.renewAfterMs,
      expiresAtMs: askedAtMs + life.expiresAfterMs,
      failure: undefined,
    };
  }

  /** If an early renewal fails, the login stays in use until it expires. */
  #keepWithout(
    answer: Exclude<HelperAnswer, { kind: "login" }>,
    askedAtMs: number,
  ): Kept {
    const renewAtMs = askedAtMs + HELPER_REST_MS;
    const old = this.#kept;
    const isFailed = answer.kind === "failed";
    if (isFailed && old?.login !== undefined && askedAtMs < old.expiresAtMs) {
      return { ...old, askedAtMs, renewAtMs };
    }
    return {
      login: undefined,
      askedAtMs,
      renewAtMs,
      expiresAtMs: renewAtMs,
      failure: isFailed ? answer.reason : undefined,
    };
  }
}
