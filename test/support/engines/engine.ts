import { runCommand } from "../run-command.ts";

/** A container engine that is configured for a mirror and has its own local store. */
export interface Engine {
  /** Pulls as users do. @returns digests under which the engine then lists the image */
  pull(reference: string): Promise<readonly string[]>;
  /** Runs a command in a container of a pulled image. @returns its standard output */
  run(reference: string, command: readonly string[]): Promise<string>;
  /** Removes everything that was pulled. */
  empty(): Promise<void>;
}

/** Address of the mirror for an engine. */
export interface MirrorAddress {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** True: the mirror uses TLS, with an authority that each engine trusts by its own configuration. */
  readonly isTls?: boolean;
  /** Lines for the mirror's section of each hosts.toml. */
  readonly hostsToml?: string;
}

/**
 * Fails if a program is not installed: an end-to-end test that is skipped proves nothing.
 *
 * @throws Error with the names of the missing programs
 */
export async function requireCommands(
  commands: readonly string[],
): Promise<void> {
  const missing: string[] = [];
  for (const command of commands) {
    try {
      await runCommand("sh", ["-c", 'command -v "$1"', "sh", command]);
    } catch {
      missing.push(command);
    }
  }
  if (missing.length > 0) {
    throw new Error(`not installed: ${missing.join(", ")}`);
  }
}
