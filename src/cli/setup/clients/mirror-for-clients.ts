import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { Config, UpstreamConfig } from "../../../config/config.ts";
import { parseCertificates } from "../../../config/files/certificates.ts";
import { readTextFile, seenIn } from "../../../config/files/files.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ENDPOINT,
} from "../../../config/schema/well-known-upstreams.ts";
import {
  createRoutes,
  looksLikeRegistry,
  type Routes,
} from "../../../routing/routes.ts";
import {
  type ClientAddress,
  chooseAddress,
  isRefused,
  type Refused,
  registryHost,
} from "./client-address.ts";

const MAX_FILE_BYTES = 1_048_576;

/** A registry that engines can pull from through the mirror. */
export interface ClientRegistry {
  /** As in image references: `docker.io`, `registry.corp:5000`. */
  readonly name: string;
  /** The first component of the mirror's paths for it; undefined: only `?ns=` can name it. */
  readonly pathName: string | undefined;
  /** The URL at which engines reach it without the mirror. */
  readonly server: string;
}

/** The properties of a mirror that the set-up of an engine depends on. */
export interface MirrorForClients {
  readonly scheme: "http" | "https";
  /** As in image references: `mirror.internal:5000`. */
  readonly host: string;
  /** `http://mirror.internal:5000`. */
  readonly url: string;
  /** PEM of the authority that clients must trust; undefined: none, or one that systems trust. */
  readonly ca: string | undefined;
  readonly needsClientCertificate: boolean;
  readonly needsLogin: boolean;
  /** Those of `--upstream`, otherwise all that the configuration names. */
  readonly registries: readonly ClientRegistry[];
  /** Whether `--upstream` chose them. */
  readonly isChosen: boolean;
  /** The keys of templates, such as `*.corp`; empty if `--upstream` chose registries. */
  readonly templates: readonly string[];
  /** The base URL for engines that send names of Docker Hub without a registry. */
  readonly hubUrl: string | undefined;
  /** Names of hosted registries that engines read as a registry: `registry.corp`. */
  readonly hostedNames: readonly string[];
  /** The prefix of references to hosted images; undefined: nothing is hosted. */
  readonly hostedPrefix: string | undefined;
  readonly notes: readonly string[];
}

export interface MirrorOptions {
  /** From `--address`. */
  readonly address: string | undefined;
  /** From `--ca-file`; absolute. */
  readonly caFile: string | undefined;
  /** From `--upstream`; empty: all. */
  readonly upstreams: readonly string[];
  /** The machine's name. */
  readonly hostname: string;
}

/** Collects what the clients of a configured mirror need. */
export async function readMirrorForClients(
  config: Config,
  options: MirrorOptions,
): Promise<MirrorForClients | Refused> {
  const notes: string[] = [];
  const certificates = await readCertificates(config);
  if (isRefused(certificates)) return certificates;
  const address = chooseAddress(config, options, certificates[0]);
  if (isRefused(address)) return address;
  notes.push(...address.notes);
  const routes = createRoutes(
    config.upstreams,
    config.upstreamTemplates,
    config.hosted,
  );
  const chosen = chooseRegistries(config, routes, options.upstreams);
  if (isRefused(chosen)) return chosen;
  const ca = await findAuthority(address, certificates, options.caFile);
  if (isRefused(ca)) return ca;
  notes.push(...ca.notes);
  const host = registryHost(address);
  const { access, tls } = config;
  return {
    scheme: address.scheme,
    host,
    url: `${address.scheme}://${host}`,
    ca: ca.pem,
    needsClientCertificate:
      tls?.clientCaFile !== undefined && access === undefined,
    needsLogin: access?.anonymous === "none",
    registries: chosen,
    isChosen: options.upstreams.length > 0,
    templates:
      options.upstreams.length > 0
        ? []
        : (config.upstreamTemplates ?? []).map(({ name }) => name),
    hubUrl:
      chosen.some(({ name }) => name === DOCKER_HUB) ||
      (options.upstreams.length === 0 &&
        routes.findUpstream(DOCKER_HUB) !== undefined)
        ? urlOfHub(config, address)
        : undefined,
    hostedNames: config.hosted
      .map(({ name }) => name)
      .filter(looksLikeRegistry),
    hostedPrefix: prefixOfHosted(config, host),
    notes,
  };
}

async function readCertificates({
  tls,
}: Config): Promise<readonly X509Certificate[] | Refused> {
  if (tls === undefined) return [];
  const file = tls.certificateFile;
  const read = await readTextFile(file, MAX_FILE_BYTES);
  const found = read.isRead ? parseCertificates(read.text) : read.seen;
  return typeof found === "string"
    ? {
        flaw: `tls.certificateFile: got ${seenIn(file, found)}; expected a readable file of PEM certificates`,
      }
    : found.map(({ certificate }) => certificate);
}

interface Authority {
  readonly pem: string | undefined;
  readonly notes: readonly string[];
}

/** Finds the certificate that clients must trust to verify the mirror's own. */
async function findAuthority(
  { scheme, isOwn }: ClientAddress,
  certificates: readonly X509Certificate[],
  caFile: string | undefined,
): Promise<Authority | Refused> {
  if (caFile !== undefined) {
    const read = await readTextFile(caFile, MAX_FILE_BYTES);
    const found = read.isRead ? parseCertificates(read.text) : read.seen;
    if (typeof found === "string") {
      const flaw = `--ca-file: got ${seenIn(caFile, found)}; expected a readable file of PEM certificates`;
      return { flaw };
    }
    return { pem: found.map(({ pem }) => `${pem}\n`).join(""), notes: [] };
  }
  const top = certificates.at(-1);
  // A URL with a scheme of its own is that of a proxy, with a certificate of its own.
  if (scheme === "http" || !isOwn || top === undefined) {
    return { pem: undefined, notes: [] };
  }
  if (top.checkIssued(top)) return { pem: top.toString(), notes: [] };
  const issuer = top.issuer.replaceAll("\n", ", ");
  const note = `the certificate is issued by ${issuer}, which tls.certificateFile does not contain; if the clients' systems do not trust it, add --ca-file FILE with its certificate`;
  return { pem: undefined, notes: [note] };
}

function chooseRegistries(
  { upstreams, upstreamTemplates }: Config,
  routes: Routes,
  names: readonly string[],
): readonly ClientRegistry[] | Refused {
  const describe = (upstream: UpstreamConfig): ClientRegistry => ({
    name: upstream.name,
    pathName: routes.listedName(upstream.name),
    server: serverOf(upstream),
  });
  if (names.length === 0) return upstreams.map(describe);
  const found: UpstreamConfig[] = [];
  for (const name of names) {
    const upstream =
      upstreams.find(({ aliases }) => aliases.includes(name)) ??
      routes.findUpstream(name);
    if (upstream === undefined) {
      const known = [...upstreams, ...(upstreamTemplates ?? [])];
      const list = known.map((one) => one.name).join(", ");
      return {
        flaw: `--upstream: got ${JSON.stringify(name)}; expected one of ${list}`,
      };
    }
    if (!found.includes(upstream)) found.push(upstream);
  }
  return found.map(describe);
}

/** Returns the URL that engines use by themselves, which differs from that of a mirrored mirror. */
function serverOf({ name, endpoints }: UpstreamConfig): string {
  if (name === DOCKER_HUB) return DOCKER_HUB_ENDPOINT;
  const isPlain = endpoints.includes(`http://${name}`);
  return `${isPlain ? "http" : "https"}://${name}`;
}

/**
 * Returns the URL at which a name without a registry is Docker Hub's: the mirror's own if Docker Hub
 * is the default, otherwise one with a host name of Docker Hub, otherwise one with a path.
 */
function urlOfHub(
  { upstreams, hosted }: Config,
  address: ClientAddress,
): string {
  const hub = upstreams.find(({ name }) => name === DOCKER_HUB);
  const isDefault =
    hub?.isDefault === true && !hosted.some((one) => one.isDefault);
  const host = registryHost(address);
  if (isDefault) return `${address.scheme}://${host}`;
  const [hostname] = hub?.hostnames ?? [];
  return hostname === undefined
    ? `${address.scheme}://${host}/${DOCKER_HUB}`
    : `${address.scheme}://${withPort(hostname, address.port)}`;
}

function withPort(hostname: string, port: number | undefined): string {
  const hasPort = /:\d+$/.test(hostname) && isIP(hostname) === 0;
  return hasPort || port === undefined ? hostname : `${hostname}:${port}`;
}

function prefixOfHosted({ hosted }: Config, host: string): string | undefined {
  const first = hosted.find(({ isDefault }) => isDefault) ?? hosted[0];
  if (first === undefined) return undefined;
  return first.isDefault ? host : `${host}/${first.name}`;
}
