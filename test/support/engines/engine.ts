import { runCommand } from "../run-command.ts";

/** A container engine that was pointed at a mirror, with a local store of its own. */
export interface Engine {
  /** Pulls as its users do. @returns digests under which it then knows the image */
  pull(reference: string): Promise<readonly string[]>;
  /** Runs a command in a container of an image that was pulled. @returns its standard output */
  run(reference: string, command: readonly string[]): Promise<string>;
  /** Leaves nothing of what was pulled. */
  empty(): Promise<void>;
}

/** Where an engine finds the mirror. */
export interface MirrorAddress {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Present: by TLS, with a certificate that the engine has its own way to believe. */
  readonly isTls?: boolean;
}

/**
 * Fails for programs that are not there: an end-to-end test that did not run proves nothing.
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
