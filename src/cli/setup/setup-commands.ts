import {
  addExamples,
  type CommandLine,
  declareCommand,
} from "../declare-command.ts";

/** Adds the commands that create files for the configuration. */
export function addSetupCommands(commandLine: CommandLine): void {
  addPasswd(commandLine);
  addTls(commandLine);
}

function addPasswd(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "passwd",
    description:
      "print one line for an htpasswd file; reads the password from the terminal or a pipe",
    examples: ["entrepot passwd alice >> /etc/entrepot/htpasswd"],
  })
    .argument("<user>", "the user's name")
    .action(async (user: string) => {
      const { runPasswd } = await import("./passwd.ts");
      setExitCode(await runPasswd({ ...io, user }));
    });
}

function addTls(commandLine: CommandLine): void {
  const { program, io, setExitCode } = commandLine;
  const tls = program
    .command("tls")
    .description("certificates for the registry API")
    .showHelpAfterError("Run 'entrepot tls --help' for usage.");
  const example = "entrepot tls self-signed --host mirror.internal";
  addExamples(tls, [example]);
  declareCommand(
    { program: tls },
    {
      name: "self-signed",
      description:
        "write tls.crt and tls.key, and print where engines expect the certificate",
      examples: [
        "entrepot tls self-signed --host mirror.internal --host 192.0.2.7 --out /etc/entrepot",
      ],
    },
  )
    .requiredOption(
      "--host <host...>",
      "names and addresses that clients use for the mirror",
    )
    .option("--out <dir>", "the folder for both files", ".")
    .action(async (options: { host: string[]; out: string }) => {
      const { runTlsSelfSigned } = await import("./tls-self-signed.ts");
      setExitCode(
        await runTlsSelfSigned({
          ...io,
          hosts: options.host,
          out: options.out,
        }),
      );
    });
}
