import { Command, CommanderError, Option } from "commander";
import { VERSION } from "../telemetry/version.ts";
import { addImageCommands } from "./image-commands.ts";
import type { ImageCommand } from "./images.ts";

/** What `--help` says of the configuration file in every command. */
const CONFIG_OPTION = new Option(
  "--config <file>",
  "configuration file (else $ENTREPOT_CONFIG, /etc/entrepot/entrepot.yaml, or none)",
);

/**
 * Runs one command.
 *
 * @param args without the program and the script
 * @returns the exit code: 0 done, 1 found or failed, 2 usage or configuration
 */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  let code = 0;
  const program = createProgram((ended) => {
    code = ended;
  });
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Commander has printed it; --help and --version end here too.
    return error.exitCode === 0 ? 0 : 2;
  }
  return code;
}

/**
 * Declares every command with its arguments and options; the reference page is generated from it.
 *
 * @param setExitCode called when a command has ended
 */
export function createProgram(setExitCode: (code: number) => void): Command {
  const program = new Command("entrepot")
    .description("A pull-through caching mirror for container registries.")
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError("(--help tells what there is)");
  const { stdout, stderr, env } = process;
  const cwd = process.cwd();

  program
    .command("serve")
    .description("run the mirror")
    .addOption(CONFIG_OPTION)
    .option("--offline", "dial no upstream")
    .action(async (options: { config?: string; offline?: true }) => {
      const { runServe } = await import("./serve.ts");
      setExitCode(
        await runServe({
          configFile: options.config,
          offline: options.offline,
          env,
          cwd,
          stderr,
        }),
      );
    });

  program
    .command("check-config")
    .description("print the effective configuration, or every fault in it")
    .addOption(CONFIG_OPTION)
    .option("--changed", "print only what differs from the defaults")
    .option("--json", "JSON in place of YAML")
    .action(
      async (options: { config?: string; changed?: true; json?: true }) => {
        const { runCheckConfig } = await import("./check-config.ts");
        setExitCode(
          await runCheckConfig({
            configFile: options.config,
            env,
            cwd,
            stdout,
            stderr,
            json: options.json,
            changed: options.changed,
          }),
        );
      },
    );

  program
    .command("scrub")
    .description("compare every blob with its digest, and the index with them")
    .addOption(CONFIG_OPTION)
    .option("--repair", "drop what is damaged and bring the index in order")
    .option("--json", "print the report as JSON")
    .action(
      async (options: { config?: string; repair?: true; json?: true }) => {
        const { runScrub } = await import("./scrub.ts");
        setExitCode(
          await runScrub({
            configFile: options.config,
            isRepair: options.repair === true,
            json: options.json === true,
            env,
            cwd,
            stdout,
            stderr,
          }),
        );
      },
    );

  const runImages = async (
    command: ImageCommand,
    options: { readonly config?: string; readonly json?: true },
  ): Promise<void> => {
    const { runImageCommand } = await import("./images.ts");
    const { confirmOnTerminal } = await import("./confirm.ts");
    setExitCode(
      await runImageCommand({
        command,
        configFile: options.config,
        json: options.json === true,
        env,
        cwd,
        stdout,
        stderr,
        confirm: (question) =>
          confirmOnTerminal(process.stdin, stderr, question),
      }),
    );
  };
  addImageCommands(program, CONFIG_OPTION, runImages);

  program
    .command("passwd")
    .description(
      "print one line of an htpasswd file; the password is typed, or read from a pipe",
    )
    .argument("<user>", "the user's name")
    .action(async (user: string) => {
      const { runPasswd } = await import("./passwd.ts");
      setExitCode(
        await runPasswd({ user, stdin: process.stdin, stdout, stderr }),
      );
    });

  program
    .command("tls")
    .description("certificates for the registry API")
    .command("self-signed")
    .description(
      "write tls.crt and tls.key, and tell where engines want the certificate",
    )
    .requiredOption(
      "--host <host...>",
      "names and addresses by which clients reach the mirror",
    )
    .option("--out <dir>", "the folder to write to", ".")
    .action(async (options: { host: string[]; out: string }) => {
      const { runTlsSelfSigned } = await import("./tls-self-signed.ts");
      setExitCode(
        await runTlsSelfSigned({
          hosts: options.host,
          out: options.out,
          cwd,
          stdout,
          stderr,
        }),
      );
    });
  return program;
}
