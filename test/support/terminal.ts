import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { runCommand } from "./run-command.ts";
import { tempDir } from "./temp-dir.ts";

const POLL_MS = 50;

/** A terminal of tmux in which a program runs. It is closed with the test. */
export class Terminal {
  readonly #socket: string;

  private constructor(socket: string) {
    this.#socket = socket;
  }

  static async start(
    test: AfterTest,
    options: {
      /** The program and its arguments, as a shell reads them. */
      readonly command: string;
      readonly columns: number;
      readonly rows: number;
      readonly env: Readonly<Record<string, string>>;
    },
  ): Promise<Terminal> {
    const { command, columns, rows, env } = options;
    const socket = join(await tempDir(test, "tmux-"), "socket");
    const terminal = new Terminal(socket);
    const variables = Object.entries(env).map(
      ([name, value]) => `${name}='${value}'`,
    );
    // The runs of the tests set NO_COLOR.
    const shell = `unset NO_COLOR CI; exec env ${variables.join(" ")} ${command}`;
    const size = ["-x", String(columns), "-y", String(rows)];
    const session = ["-f", "/dev/null", "new-session", "-d", ...size, shell];
    await terminal.#tmux(...session);
    releaseAfter(test, async () => {
      await terminal.#tmux("kill-server").catch(() => undefined);
    });
    return terminal;
  }

  /** Types a text as it is. */
  async type(text: string): Promise<void> {
    await this.#tmux("send-keys", "-l", text);
  }

  /** Presses keys by their names: `Enter`, `Tab`, `C-c`. */
  async press(...keys: readonly string[]): Promise<void> {
    await this.#tmux("send-keys", ...keys);
  }

  /** Returns what is visible, without space at the ends of lines. */
  async screen(options: { readonly colours?: boolean } = {}): Promise<string> {
    const escapes = options.colours === true ? ["-e"] : [];
    return (await this.#tmux("capture-pane", "-p", ...escapes)).trimEnd();
  }

  /** Waits until a pattern is visible. @throws Error with the screen after the time-out */
  async shows(pattern: RegExp, timeoutMs = 20_000): Promise<string> {
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const screen = await this.screen();
      if (pattern.test(screen)) return screen;
      if (performance.now() > endMs) {
        throw new Error(`${String(pattern)} is not on the screen:\n${screen}`);
      }
      await delay(POLL_MS);
    }
  }

  async #tmux(...args: readonly string[]): Promise<string> {
    const { stdout } = await runCommand("tmux", ["-S", this.#socket, ...args]);
    return stdout;
  }
}
