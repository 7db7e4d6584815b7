import { Command, CommanderError } from "commander";
import { VERSION } from "../telemetry/version.ts";
import { CONFIG_OPTION } from "./declare-command.ts";
import { addImageCommands } from "./images/image-commands.ts";

/**
 * Runs one command.
 *
 * @param args without the program and the script
 * @returns the exit code: 0 done, 1 damage found or failed, 2 wrong usage or invalid configuration
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
    // Commander has printed the message; --help and --version end here too.
    return error.exitCode === 0 ? 0 : 2;
  }
  return code;
}

type SetExitCode = (code: number) => void;

/**
 * Declares every command with its arguments and options; the reference page is generated from it.
 *
 * @param setExitCode called when a command has ended
 */
export function createProgram(setExitCode: SetExitCode): Command {
  const program = new Command("entrepot")
    .description("A pull-through caching mirror for container registries.")
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError("Run 'entrepot --help' for usage.");
  addMirrorCommands(program, setExitCode);
  addImageCommands(program, CONFIG_OPTION, imageRunner(setExitCode));
  addSetupCommands(program, setExitCode);
  return program;
}

/** Adds the commands that work on the whole mirror. */
function addMirrorCommands(program: Command, setExitCode: SetExitCode): void {
  const { stdout, stderr, env } = process;
  const cwd = process.cwd();
  program
    .command("serve")
    .description("run the mirror")
    .addOption(CONFIG_OPTION)
    .option("--offline", "connect to no upstream")
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
    .option("--changed", "print only the keys that differ from the defaults")
    .option("--json", "print JSON instead of YAML")
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
    .description(
      "compare every blob with its digest, and the index with the blobs",
    )
    .addOption(CONFIG_OPTION)
    .option("--repair", "remove damaged blobs and repair the index")
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
}

/** Returns the function that runs an image command. */
function imageRunner(
  setExitCode: SetExitCode,
): Parameters<typeof addImageCommands>[2] {
  const { stdout, stderr, env } = process;
  const cwd = process.cwd();
  return async (command, options) => {
    const { runImageCommand } = await import("./images/images.ts");
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
}

/** Adds the commands that create files for the configuration. */
function addSetupCommands(program: Command, setExitCode: SetExitCode): void {
  const { stdout, stderr } = process;
  const cwd = process.cwd();
  program
    .command("passwd")
    .description(
      "print one line for an htpasswd file; reads the password from the terminal or a pipe",
    )
    .argument("<user>", "the user's name")
    .action(async (user: string) => {
      const { runPasswd } = await import("./setup/passwd.ts");
      setExitCode(
        await runPasswd({ user, stdin: process.stdin, stdout, stderr }),
      );
    });

  program
    .command("tls")
    .description("certificates for the registry API")
    .command("self-signed")
    .description(
      "write tls.crt and tls.key, and print where engines expect the certificate",
    )
    .requiredOption(
      "--host <host...>",
      "names and addresses that clients use for the mirror",
    )
    .option("--out <dir>", "the folder for both files", ".")
    .action(async (options: { host: string[]; out: string }) => {
      const { runTlsSelfSigned } = await import("./setup/tls-self-signed.ts");
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
}
