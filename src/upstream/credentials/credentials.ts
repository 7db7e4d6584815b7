import { basename } from "node:path";
import type { UpstreamCredential } from "../../config/config.ts";
import { DockerConfigSource } from "./docker-config-source.ts";
import { HelperSource } from "./helper-source.ts";
import type { CredentialSource, CredentialSourceOptions } from "./login.ts";
import { PasswordSource } from "./password-source.ts";

const MAX_NAME_LENGTH = 64;

/**
 * Returns the names of credentials in metrics and logs: a user, a file or a program, each made unique
 * by a number.
 */
export function credentialNames(
  credentials: readonly UpstreamCredential[],
): readonly string[] {
  const taken = new Set<string>();
  return credentials.map((credential) => {
    const base = nameOf(credential).slice(0, MAX_NAME_LENGTH);
    let name = base;
    for (let number = 2; taken.has(name); number++) name = `${base}#${number}`;
    taken.add(name);
    return name;
  });
}

export function createCredentialSource(
  credential: UpstreamCredential,
  options: CredentialSourceOptions,
): CredentialSource {
  if ("helper" in credential) {
    return new HelperSource(credential.helper, options);
  }
  return "dockerConfigFile" in credential
    ? new DockerConfigSource(credential, options)
    : new PasswordSource(credential, options);
}

function nameOf(credential: UpstreamCredential): string {
  if ("helper" in credential) return basename(credential.helper);
  return "dockerConfigFile" in credential
    ? basename(credential.dockerConfigFile)
    : credential.username;
}
