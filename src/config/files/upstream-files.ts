import { parseCertificates } from "./certificates.ts";
import { Secret, type UpstreamConfig } from "../config.ts";
import { parseDockerConfig } from "./docker-config.ts";
import {
  type CredentialDocument,
  credentialsOf,
  type Pruned,
  type UpstreamDocument,
} from "../document.ts";
import type { Flaw, KeyPath, PlacedFault } from "../fault.ts";
import { type FileText, readTextFile, seenIn } from "./files.ts";
import { findHelperFlaw, helpersOf } from "./helper-program.ts";
import { findSecretFlaw } from "./secret-file.ts";
import { resolveAs } from "../schema/settings.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ENDPOINT,
} from "../schema/well-known-upstreams.ts";

/** Large enough for a JSON key or a long token used as password. */
export const MAX_PASSWORD_FILE_BYTES = 65_536;
/** Large enough for many registries with identity tokens. */
export const MAX_DOCKER_CONFIG_BYTES = 1_048_576;
const MAX_CA_FILE_BYTES = 1_048_576;

/** The content of the files that an upstream names. */
export interface UpstreamFiles {
  /** In the credentials' order; undefined if the file was rejected. */
  readonly passwords: readonly (Secret | undefined)[];
  /** PEM text. */
  readonly ca: string | undefined;
  readonly clientCertificate:
    NonNullable<UpstreamConfig["tls"]["clientCertificate"]> | undefined;
  readonly paths: readonly string[];
  readonly faults: readonly PlacedFault[];
}

/** Collects what every reader below finds. */
interface Reading {
  readonly name: string;
  readonly upstream: Pruned<UpstreamDocument>;
  readonly resolve: (path: string) => string;
  readonly searchPath: string | undefined;
  readonly paths: string[];
  readonly faults: PlacedFault[];
}

/**
 * Reads and checks the files of an upstream. Never throws.
 *
 * @param resolve makes a path of the configuration absolute
 * @param searchPath the value of `PATH`, in which credential helpers are found
 */
export async function readUpstreamFiles(
  name: string,
  upstream: Pruned<UpstreamDocument>,
  resolve: (path: string) => string,
  searchPath: string | undefined,
): Promise<UpstreamFiles> {
  const paths: string[] = [];
  const faults: PlacedFault[] = [];
  const reading = { name, upstream, resolve, searchPath, paths, faults };
  const passwords: (Secret | undefined)[] = [];
  for (const { path, credential } of credentialsOf(name, upstream)) {
    passwords.push(await readCredential(credential, path, reading));
  }
  const clientCertificate = await readClientCertificate(reading);
  const ca = await readAuthorities(reading);
  return { passwords, clientCertificate, ca, paths, faults };
}

/** Returns the password; undefined if the credential has none or it was rejected. */
async function readCredential(
  credential: Pruned<CredentialDocument>,
  path: KeyPath,
  reading: Reading,
): Promise<Secret | undefined> {
  const { password, passwordFile, dockerConfigFile, helper } = credential;
  const { resolve, searchPath, paths, faults } = reading;
  if (helper !== undefined) {
    const program = resolveAs("program", helper, resolve);
    const flaw = await findHelperFlaw(program, searchPath);
    if (flaw !== undefined) faults.push({ path: [...path, "helper"], ...flaw });
  }
  if (dockerConfigFile !== undefined) {
    const flaw = await findDockerConfigFlaw(resolve(dockerConfigFile), reading);
    if (flaw !== undefined) {
      faults.push({ path: [...path, "dockerConfigFile"], ...flaw });
    }
  }
  if (passwordFile === undefined) {
    return password === undefined ? undefined : new Secret(password);
  }
  const file = resolve(passwordFile);
  paths.push(file);
  const read = await readTextFile(file, MAX_PASSWORD_FILE_BYTES);
  const secret = readPassword(read, file);
  const flaw =
    typeof secret !== "string"
      ? secret
      : read.isRead
        ? findSecretFlaw(read, file)
        : undefined;
  if (flaw !== undefined) {
    faults.push({ path: [...path, "passwordFile"], ...flaw });
  }
  return typeof secret === "string" ? new Secret(secret) : undefined;
}

async function readAuthorities({
  name,
  upstream: { tls },
  resolve,
  paths,
  faults,
}: Reading): Promise<string | undefined> {
  if (!tls?.caFile) return undefined;
  const file = resolve(tls.caFile);
  paths.push(file);
  const ca = await readCertificates(file);
  if (typeof ca === "string") return ca;
  faults.push({ path: ["upstreams", name, "tls", "caFile"], ...ca });
  return undefined;
}

/** Checks certificate and key together: TLS itself would report a wrong pair only at the first connection. */
async function readClientCertificate({
  name,
  upstream: { tls },
  resolve,
  paths,
  faults,
}: Reading): Promise<UpstreamFiles["clientCertificate"]> {
  if (!tls?.certificateFile || !tls.keyFile) return undefined;
  const certificatePlace = ["upstreams", name, "tls", "certificateFile"];
  const keyPlace = ["upstreams", name, "tls", "keyFile"];
  const certificateFile = resolve(tls.certificateFile);
  const keyFile = resolve(tls.keyFile);
  paths.push(certificateFile, keyFile);
  const certificate = await readCertificates(certificateFile);
  if (typeof certificate !== "string") {
    faults.push({ path: certificatePlace, ...certificate });
  }
  const key = await readTextFile(keyFile, MAX_PASSWORD_FILE_BYTES);
  if (!key.isRead) {
    const seen = seenIn(keyFile, key.seen);
    faults.push({ path: keyPlace, seen, expected: "a readable PEM key" });
    return undefined;
  }
  const flaw = findSecretFlaw(key, keyFile);
  if (flaw !== undefined) faults.push({ path: keyPlace, ...flaw });
  if (typeof certificate !== "string") return undefined;
  const { createSecureContext } = await import("node:tls");
  try {
    createSecureContext({ cert: certificate, key: key.text });
  } catch {
    faults.push({
      path: keyPlace,
      seen: seenIn(keyFile, "not the key of the certificate"),
      expected: `the PEM key of ${certificateFile}, without a passphrase`,
    });
    return undefined;
  }
  return {
    certificate,
    key: new Secret(key.text),
    certificateFile,
    keyFile,
  };
}

/** Checks the file at the start: it is read again at each use, which would otherwise fail only then. */
async function findDockerConfigFlaw(
  file: string,
  { name, upstream, searchPath, paths }: Reading,
): Promise<Flaw | undefined> {
  paths.push(file);
  const read = await readTextFile(file, MAX_DOCKER_CONFIG_BYTES);
  const expected = "a readable Docker config.json no larger than 1 MiB";
  if (!read.isRead) return { seen: seenIn(file, read.seen), expected };
  const content = parseDockerConfig(read.text);
  if (content === undefined) {
    return { seen: seenIn(file, "not a JSON mapping"), expected };
  }
  // With helpers alone it holds no secret.
  const flaw =
    content.logins.size === 0 ? undefined : findSecretFlaw(read, file);
  if (flaw !== undefined) return flaw;
  for (const program of helpersOf(content, endpointsOf(name, upstream))) {
    const missing = await findHelperFlaw(program, searchPath);
    if (missing === undefined) continue;
    return { ...missing, seen: `${missing.seen}, named by ${file}` };
  }
  return undefined;
}

function endpointsOf(
  name: string,
  { endpoints }: Pruned<UpstreamDocument>,
): readonly URL[] {
  const texts =
    endpoints ??
    (name === DOCKER_HUB ? [DOCKER_HUB_ENDPOINT] : [`https://${name}`]);
  return texts.flatMap((text) => URL.parse(text ?? "") ?? []);
}

/** Editors and `echo` end a file with a newline that is not part of the password. */
function readPassword(read: FileText, file: string): string | Flaw {
  if (!read.isRead) {
    const expected = "a readable file no larger than 64 KiB";
    return { seen: seenIn(file, read.seen), expected };
  }
  const password = read.text.replace(/\r?\n$/, "");
  return password === ""
    ? {
        seen: seenIn(file, "empty"),
        expected: "a file that holds the password",
      }
    : password;
}

async function readCertificates(file: string): Promise<string | Flaw> {
  const expected = "a readable file of PEM certificates";
  const read = await readTextFile(file, MAX_CA_FILE_BYTES);
  if (!read.isRead) return { seen: seenIn(file, read.seen), expected };
  const found = parseCertificates(read.text);
  return typeof found === "string"
    ? { seen: seenIn(file, found), expected }
    : found.map(({ pem }) => pem).join("\n");
}
