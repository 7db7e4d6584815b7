import type { Readable, Writable } from "node:stream";
import { Secret } from "../../config/config.ts";
import { parseJsonObject } from "../../oci/json-object.ts";

/** The answer of a credential helper. */
export type HelperAnswer =
  | {
      readonly kind: "login";
      readonly username: string;
      readonly secret: Secret;
      /** The secret is a refresh token of OAuth2. */
      readonly isIdentityToken: boolean;
    }
  /** The helper has no login for the server. */
  | { readonly kind: "none" }
  /** The reason is our own text: a helper's output may hold a secret. */
  | { readonly kind: "failed"; readonly reason: string };

export interface HelperBounds {
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

/** @see faults.md section 4 */
const BOUNDS: HelperBounds = { timeoutMs: 10_000, maxBytes: 65_536 };
/** The text that helper libraries print if they have no login. */
const NOT_FOUND = /credentials not found/i;
/** The user name that marks the secret as a token. */
const TOKEN_USER = "<token>";

/**
 * Requests the credentials of a server from a program by Docker's credential-helper protocol: runs
 * `PROGRAM get` without a shell, with the server on its standard input. Bounded in time and bytes; at a
 * bound, the program and its child processes are killed. Never throws.
 *
 * @param program a path, or a name that is searched in `PATH`
 * @see https://github.com/docker/docker-credential-helpers
 */
export async function askHelper(
  program: string,
  server: string,
  bounds: HelperBounds = BOUNDS,
): Promise<HelperAnswer> {
  const run = await runHelper(program, server, bounds);
  if ("reason" in run) return { kind: "failed", reason: run.reason };
  if (run.code !== 0) {
    return NOT_FOUND.test(run.output)
      ? { kind: "none" }
      : { kind: "failed", reason: `ended with ${run.code ?? "a signal"}` };
  }
  return (
    parseAnswer(run.output) ?? { kind: "failed", reason: "printed no login" }
  );
}

type Run =
  | { readonly code: number | null; readonly output: string }
  | { readonly reason: string };

async function runHelper(
  program: string,
  server: string,
  { timeoutMs, maxBytes }: HelperBounds,
): Promise<Run> {
  const { spawn } = await import("node:child_process");
  const { promise, resolve } = Promise.withResolvers<Run>();
  const child = spawn(program, ["get"], {
    shell: false,
    // In its own process group, so that children of a script can be killed: they would keep its output open.
    detached: true,
    stdio: ["pipe", "pipe", "ignore"],
  });
  // If no descriptor is free there are no pipes, and `error` follows.
  const stdout: Readable | undefined = child.stdout;
  const stdin: Writable | undefined = child.stdin;
  const end = (run: Run): void => {
    clearTimeout(timer);
    stdout?.destroy();
    resolve(run);
  };
  const kill = (reason: string): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // The process has just ended by itself.
    }
    end({ reason });
  };
  const timer = setTimeout(
    () => kill(`did not answer within ${timeoutMs / 1_000} s`),
    timeoutMs,
  );
  const chunks: Buffer[] = [];
  let bytes = 0;
  stdout?.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxBytes) kill(`printed more than ${maxBytes} bytes`);
    else chunks.push(chunk);
  });
  child.on("error", (error: NodeJS.ErrnoException) =>
    end({ reason: `cannot be run (${error.code ?? "unknown"})` }),
  );
  child.on("close", (code) =>
    end({ code, output: Buffer.concat(chunks).toString("utf8") }),
  );
  // A program that ends without reading its input is judged by its output.
  stdin?.on("error", () => {});
  stdin?.end(`${server}\n`);
  return promise;
}

function parseAnswer(output: string): HelperAnswer | undefined {
  const fields = parseJsonObject(output);
  if (fields === undefined) return undefined;
  const username = fields.get("Username");
  const secret = fields.get("Secret");
  if (typeof username !== "string" || typeof secret !== "string") {
    return undefined;
  }
  if (secret === "") return username === "" ? { kind: "none" } : undefined;
  const isIdentityToken = username === TOKEN_USER;
  if (!isIdentityToken && (username === "" || username.includes(":"))) {
    return undefined;
  }
  return {
    kind: "login",
    username: isIdentityToken ? "" : username,
    secret: new Secret(secret),
    isIdentityToken,
  };
}
