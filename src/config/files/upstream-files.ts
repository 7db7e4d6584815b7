import { parseCertificates } from "./certificates.ts";
import { Secret, type UpstreamConfig } from "../config.ts";
import { parseDockerConfig } from "./docker-config.ts";
import {
  credentialsOf,
  type Pruned,
  type UpstreamDocument,
} from "../document.ts";
import type { KeyPath } from "../fault.ts";
import { type FileText, readTextFile } from "./files.ts";
import { findHelperFlaw, helpersOf } from "./helper-program.ts";
import { findSecretFlaw } from "./secret-file.ts";
import type { PlacedFault } from "../validate.ts";
import { resolveAs } from "../schema/settings.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ENDPOINT,
} from "../schema/well-known-upstreams.ts";

/** Room for a JSON key or a token of many kilobytes that serves as password. */
export const MAX_PASSWORD_FILE_BYTES = 65_536;
/** With many registries, and their identity tokens. */
export const MAX_DOCKER_CONFIG_BYTES = 1_048_576;
const MAX_CA_FILE_BYTES = 1_048_576;

/** What the files that an upstream names hold. */
export interface UpstreamFiles {
  /** In the credentials' order; undefined where the file was refused. */
  readonly passwords: readonly (Secret | undefined)[];
  /** PEM text. */
  readonly ca: string | undefined;
  readonly clientCertificate:
    NonNullable<UpstreamConfig["tls"]["clientCertificate"]> | undefined;
  readonly paths: readonly string[];
  readonly faults: readonly PlacedFault[];
}

/**
 * @param resolve makes a path of the configuration absolute
 * @param searchPath the value of `PATH`, which credential helpers are looked up in
 */
export async function readUpstreamFiles(
  name: string,
  upstream: Pruned<UpstreamDocument>,
  resolve: (path: string) => string,
  searchPath: string | undefined,
): Promise<UpstreamFiles> {
  const passwords: (Secret | undefined)[] = [];
  const paths: string[] = [];
  const faults: PlacedFault[] = [];
  for (const { path, credential } of credentialsOf(name, upstream)) {
    const { password, passwordFile, dockerConfigFile, helper } = credential;
    if (helper !== undefined) {
      const program = resolveAs("program", helper, resolve);
      const flaw = await findHelperFlaw(program, searchPath);
      if (flaw !== undefined) {
        faults.push({ path: [...path, "helper"], ...flaw });
      }
    }
    if (dockerConfigFile !== undefined) {
      const place = [...path, "dockerConfigFile"];
      const file = resolve(dockerConfigFile);
      paths.push(file);
      faults.push(
        ...(await judgeDockerConfig(file, place, {
          endpoints: endpointsOf(name, upstream),
          searchPath,
        })),
      );
    }
    if (passwordFile === undefined) {
      passwords.push(password === undefined ? undefined : new Secret(password));
      continue;
    }
    const place = [...path, "passwordFile"];
    const file = resolve(passwordFile);
    paths.push(file);
    const read = await readTextFile(file, MAX_PASSWORD_FILE_BYTES);
    const secret = readPassword(read);
    passwords.push(typeof secret === "string" ? new Secret(secret) : undefined);
    if (typeof secret !== "string") {
      faults.push({
        path: place,
        seen: `${file}: ${secret.seen}`,
        expected: secret.expected,
      });
    } else if (read.isRead) {
      const flaw = findSecretFlaw(read, file);
      if (flaw !== undefined) faults.push({ path: place, ...flaw });
    }
  }
  const clientCertificate = await readClientCertificate(
    name,
    upstream,
    resolve,
    { paths, faults },
  );
  const read = { passwords, clientCertificate, paths, faults };
  const caFile = upstream.tls?.caFile;
  if (!caFile) return { ...read, ca: undefined };
  const file = resolve(caFile);
  paths.push(file);
  const ca = readCertificates(await readTextFile(file, MAX_CA_FILE_BYTES));
  if (typeof ca === "string") return { ...read, ca };
  faults.push({
    path: ["upstreams", name, "tls", "caFile"],
    seen: `${file}: ${ca.seen}`,
    expected: "a readable file of PEM certificates",
  });
  return { ...read, ca: undefined };
}

/** Certificate and key are tried together here, for TLS would tell of a wrong pair at the first dial only. */
async function readClientCertificate(
  name: string,
  { tls }: Pruned<UpstreamDocument>,
  resolve: (path: string) => string,
  found: {
    readonly paths: string[];
    readonly faults: PlacedFault[];
  },
): Promise<UpstreamFiles["clientCertificate"]> {
  if (!tls?.certificateFile || !tls.keyFile) return undefined;
  const place = ["upstreams", name, "tls"];
  const certificateFile = resolve(tls.certificateFile);
  const keyFile = resolve(tls.keyFile);
  found.paths.push(certificateFile, keyFile);
  const certificate = readCertificates(
    await readTextFile(certificateFile, MAX_CA_FILE_BYTES),
  );
  if (typeof certificate !== "string") {
    found.faults.push({
      path: [...place, "certificateFile"],
      seen: `${certificateFile}: ${certificate.seen}`,
      expected: certificate.expected,
    });
  }
  const key = await readTextFile(keyFile, MAX_PASSWORD_FILE_BYTES);
  if (!key.isRead) {
    found.faults.push({
      path: [...place, "keyFile"],
      seen: `${keyFile}: ${key.seen}`,
      expected: "a readable file with a PEM key",
    });
    return undefined;
  }
  const flaw = findSecretFlaw(key, keyFile);
  if (flaw !== undefined) {
    found.faults.push({ path: [...place, "keyFile"], ...flaw });
  }
  if (typeof certificate !== "string") return undefined;
  const { createSecureContext } = await import("node:tls");
  try {
    createSecureContext({ cert: certificate, key: key.text });
  } catch {
    found.faults.push({
      path: [...place, "keyFile"],
      seen: `${keyFile}: no key of ${certificateFile}`,
      expected: "its PEM key, without a pass phrase",
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

/** It is read again when it is used; a start without it would only fail later. */
async function judgeDockerConfig(
  file: string,
  path: KeyPath,
  helpers: {
    readonly endpoints: readonly URL[];
    readonly searchPath: string | undefined;
  },
): Promise<PlacedFault[]> {
  const read = await readTextFile(file, MAX_DOCKER_CONFIG_BYTES);
  const expected = "a readable config.json of Docker's, at most 1 MiB";
  if (!read.isRead) {
    return [{ path, seen: `${file}: ${read.seen}`, expected }];
  }
  const content = parseDockerConfig(read.text);
  if (content === undefined) {
    return [{ path, seen: `${file}: no JSON mapping`, expected }];
  }
  // With helpers alone it holds no secret.
  const flaw =
    content.logins.size === 0 ? undefined : findSecretFlaw(read, file);
  if (flaw !== undefined) return [{ path, ...flaw }];
  for (const program of helpersOf(content, helpers.endpoints)) {
    const missing = await findHelperFlaw(program, helpers.searchPath);
    if (missing === undefined) continue;
    return [{ path, ...missing, seen: `${file} names ${missing.seen}` }];
  }
  return [];
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

interface Refusal {
  readonly seen: string;
  readonly expected: string;
}

/** Editors and `echo` end a file by a newline that is no part of the password. */
function readPassword(read: FileText): string | Refusal {
  if (!read.isRead) {
    return { seen: read.seen, expected: "a readable file of at most 64 KiB" };
  }
  const password = read.text.replace(/\r?\n$/, "");
  return password === ""
    ? { seen: "an empty file", expected: "a file that holds the password" }
    : password;
}

function readCertificates(read: FileText): string | Refusal {
  const expected = "a readable file of PEM certificates";
  if (!read.isRead) return { seen: read.seen, expected };
  const found = parseCertificates(read.text);
  return typeof found === "string"
    ? { seen: found, expected }
    : found.map(({ pem }) => pem).join("\n");
}
