import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { Config } from "../../../config/config.ts";

/** A reason, as `got X; expected Y`. */
export interface Refused {
  readonly flaw: string;
}

export function isRefused(value: object): value is Refused {
  return "flaw" in value;
}

/** The address of the mirror as its clients write it. */
export interface ClientAddress {
  readonly scheme: "http" | "https";
  /** With brackets if it is an address of IPv6. */
  readonly host: string;
  /** Undefined: that of the scheme. */
  readonly port: number | undefined;
  /** Whether the mirror itself serves the scheme, and not a proxy in front of it. */
  readonly isOwn: boolean;
  readonly notes: readonly string[];
}

const ADDRESS =
  /^(?:(https?):\/\/)?(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*)(?::(\d{1,5}))?\/?$/;
const EXPECTED =
  "HOST:PORT, such as mirror.internal:5000, or the URL of a proxy in front of the mirror, such as https://mirror.corp";

/** Returns `HOST:PORT`, or the host alone at the port of the scheme. */
export function registryHost({
  host,
  port,
}: Pick<ClientAddress, "host" | "port">): string {
  return port === undefined ? host : `${host}:${port}`;
}

/** Takes the address of `--address`, otherwise the one that clients most probably use. */
export function chooseAddress(
  config: Pick<Config, "listen" | "tls">,
  options: {
    readonly address: string | undefined;
    readonly hostname: string;
  },
  certificate: X509Certificate | undefined,
): ClientAddress | Refused {
  const address =
    options.address === undefined
      ? addressOfListener(config, options.hostname, certificate)
      : parseAddress(options.address, config.tls !== undefined);
  if (isRefused(address) || !address.isOwn || certificate === undefined) {
    return address;
  }
  return isNamed(certificate, address.host)
    ? address
    : {
        ...address,
        notes: [
          ...address.notes,
          `the certificate is not valid for ${address.host}: it names ${certificate.subjectAltName ?? "no host"}`,
        ],
      };
}

function parseAddress(text: string, isTls: boolean): ClientAddress | Refused {
  const flaw = `--address: got ${JSON.stringify(text)}; expected ${EXPECTED}`;
  const [, written, host = "", digits] = ADDRESS.exec(text.toLowerCase()) ?? [];
  const own = isTls ? "https" : "http";
  const scheme = written === "http" || written === "https" ? written : own;
  const port = digits === undefined ? undefined : Number(digits);
  const inBrackets = /^\[(.*)\]$/.exec(host)?.[1];
  if (
    host === "" ||
    port === 0 ||
    (port ?? 1) > 65_535 ||
    (inBrackets !== undefined && isIP(inBrackets) !== 6) ||
    (/^[0-9.]+$/.test(host) && isIP(host) !== 4) ||
    // Engines take a single word without a port for a part of a repository's name.
    (port === undefined && (written === undefined || !host.includes(".")))
  ) {
    return { flaw };
  }
  return { scheme, host, port, isOwn: scheme === own, notes: [] };
}

function addressOfListener(
  { listen, tls }: Pick<Config, "listen" | "tls">,
  hostname: string,
  certificate: X509Certificate | undefined,
): ClientAddress | Refused {
  const scheme = tls === undefined ? "http" : "https";
  const listener =
    listen.find(({ host }) => !isLoopback(host) && !isWildcard(host)) ??
    listen.find(({ host }) => isWildcard(host)) ??
    listen[0];
  if (listener === undefined || listener.port === 0) {
    return {
      flaw: "listen: got port 0, which is any free port; expected a port, or --address HOST:PORT",
    };
  }
  const { port } = listener;
  const make = (host: string, ...notes: readonly string[]): ClientAddress => ({
    scheme,
    host: isIP(host) === 6 ? `[${host}]` : host.toLowerCase(),
    port,
    isOwn: true,
    notes,
  });
  if (isLoopback(listener.host)) {
    return make(
      listener.host,
      `listen is ${listener.host}, which only engines on this machine reach; for others set listen, or add --address HOST:PORT`,
    );
  }
  if (!isWildcard(listener.host)) return make(listener.host);
  const host = firstName(certificate) ?? hostname;
  return make(
    host,
    `listen names no host, so ${host} is used; add --address HOST:PORT if clients use another name`,
  );
}

/** Returns the first name or address of a certificate, without wildcards. */
function firstName(
  certificate: X509Certificate | undefined,
): string | undefined {
  const names = certificate?.subjectAltName?.split(", ") ?? [];
  return names
    .map((name) => /^(?:DNS|IP Address):([^*]+)$/.exec(name)?.[1])
    .find((name) => name !== undefined)
    ?.toLowerCase();
}

function isNamed(certificate: X509Certificate, host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  return isIP(bare) === 0
    ? certificate.checkHost(bare) !== undefined
    : certificate.checkIP(bare) !== undefined;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}
