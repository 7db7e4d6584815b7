import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { ChildMirror } from "../child-mirror.ts";
import { Child } from "../child-process.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";
import { takeOwnAddress } from "./own-address.ts";

const MAIN = join(import.meta.dirname, "../../../src/main.ts");

/** A running private registry, for clients that push. */
export interface HostedRegistry {
  /** `127.0.0.1:PORT`, or an address for which clients verify certificates. */
  readonly host: string;
  readonly mirror: ChildMirror;
  /** Present: TLS with this certificate, and every request needs a log-in. */
  readonly guard: Guard | undefined;
}

export interface Guard {
  /** `tls.crt` as `entrepot tls self-signed` wrote it. */
  readonly certificateFile: string;
  readonly certificate: string;
  readonly user: string;
  readonly password: string;
}

const USER = "alice";
const PASSWORD = "right horse";

/** Starts a registry as a user does who wants nothing but a private one: over plain HTTP, for this machine. */
export async function startOpenRegistry(
  test: AfterTest,
): Promise<HostedRegistry> {
  const mirror = await ChildMirror.start(test, {
    config: { hosted: { local: { default: true } } },
  });
  return { host: mirror.host, mirror, guard: undefined };
}

/** Starts a registry with TLS and users; certificate and password file are written by the commands. */
export async function startGuardedRegistry(
  test: AfterTest,
): Promise<HostedRegistry & { readonly guard: Guard }> {
  const dir = await tempDir(test, "guarded-");
  const address = await takeOwnAddress(test);
  await runCommand(process.execPath, [
    MAIN,
    "tls",
    "self-signed",
    `--host=${address}`,
    `--out=${dir}`,
  ]);
  const htpasswd = join(dir, "htpasswd");
  const passwd = new Child(test, {
    command: "sh",
    args: [
      "-c",
      `echo "$0" | "$1" "$2" passwd ${USER}`,
      PASSWORD,
      process.execPath,
      MAIN,
    ],
  });
  const line = await passwd.line((text) =>
    text.startsWith(`${USER}:`) ? text : undefined,
  );
  await writeFile(htpasswd, `${line}\n`);
  await chmod(htpasswd, 0o600);
  const mirror = await ChildMirror.start(test, {
    dir,
    config: {
      listen: `${address}:0`,
      tls: { certificateFile: "tls.crt", keyFile: "tls.key" },
      access: { htpasswdFile: "htpasswd", anonymous: "none" },
      hosted: { local: { default: true } },
    },
  });
  const certificateFile = join(dir, "tls.crt");
  const certificate = await readFile(certificateFile, "utf8");
  return {
    host: mirror.host,
    mirror,
    guard: { certificateFile, certificate, user: USER, password: PASSWORD },
  };
}
