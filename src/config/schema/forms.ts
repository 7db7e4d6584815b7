import { isIP } from "node:net";
import { parseRepositoryName } from "../../oci/reference.ts";
import {
  AMOUNT_PATTERN,
  DAILY_SHARE_PATTERN,
  DURATION_OR_OFF_PATTERN,
  DURATION_PATTERN,
  parseAmount,
  parseDailyShare,
  parseDuration,
  parseDurationOrOff,
  parseSize,
} from "./units.ts";

export interface ListenAddress {
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
}

/** A form of text that the schema names by `x-form`. */
export interface Form {
  /** The part of the form that a regular expression can express, for editors that read the published schema. */
  readonly pattern: string;
  /** Returns why the text is invalid; undefined if it is valid. */
  readonly findFlaw: (text: string) => FormFlaw | undefined;
}

/**
 * The parts of a fault that the form knows better: `seen` replaces a text that may hold a secret,
 * `expected` the key's own description of a valid value.
 */
export interface FormFlaw {
  readonly seen?: string;
  readonly expected?: string;
  readonly fix?: string;
}

export type FormName =
  | "amount"
  | "dailyShare"
  | "duration"
  | "durationOrOff"
  | "endpoint"
  | "host"
  | "hostedName"
  | "imagePattern"
  | "listen"
  | "network"
  | "pattern"
  | "proxy"
  | "quota"
  | "rate"
  | "realm"
  | "redirectHost"
  | "registry"
  | "registryOrTemplate"
  | "repositories"
  | "schedule"
  | "size"
  | "tagPattern"
  | "webhook";

const HOST =
  "(?:[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*|\\[[0-9a-f:.]+\\])";
const HOST_PATTERN = `^${HOST}(?::[0-9]{1,5})?$`;
const HOST_AND_PORT = new RegExp(HOST_PATTERN);
/** Has at least one `*`, which stands for any text, dots included. */
const TEMPLATE_HOST = "[a-z0-9_.-]*[*][a-z0-9_.*-]*";
const TEMPLATE = new RegExp(`^${TEMPLATE_HOST}(?::[0-9]{1,5})?$`);
const LISTEN_PATTERN = `^(?:[A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$`;
const LISTEN = new RegExp(LISTEN_PATTERN);
const ENDPOINT_PATTERN = "^https?://[^\\s@?#\\\\]+$";
const ENDPOINT = new RegExp(ENDPOINT_PATTERN);
/** A repository and a tag, with `*`; a digest is never matched by text. */
const PATTERN_PATTERN = "^[a-z0-9._/*-]+(?::[A-Za-z0-9._*-]+)?$";
const PATTERN = new RegExp(PATTERN_PATTERN);
const REDIRECT_HOST_PATTERN =
  "^(?:[a-z0-9*](?:[a-z0-9_.*-]*[a-z0-9*])?|[0-9.]+/[0-9]{1,2}|[0-9a-f:.]*:[0-9a-f:.]*(?:/[0-9]{1,3})?)$";
const REDIRECT_HOST = new RegExp(REDIRECT_HOST_PATTERN);
const PROXY_PATTERN = "^(?:|none|https?://[^\\s?#\\\\]+)$";
const PROXY = new RegExp(PROXY_PATTERN);
const SIZE_PATTERN = "^(?:0|[0-9]+(?:\\.[0-9]+)?(?:B|[kKMGT]B|[KMGT]iB))$";
/** `/v2/v2/…` would be both the path before `/v2/` and the first component. */
const HOSTED_NAME_PATTERN = "^(?!v2$)[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*$";
const MAX_HOSTED_NAME_LENGTH = 64;
const TAG_PATTERN_PATTERN = "^[A-Za-z0-9_*][A-Za-z0-9._*-]{0,127}$";
/** Five fields; the fields are checked by the library that runs the schedule. */
const SCHEDULE_PATTERN = "^[^\\s@]+(?: +[^\\s@]+){4}$";
const WEBHOOK_PATTERN = "^https?://[^\\s#\\\\]+$";
const WEBHOOK = new RegExp(WEBHOOK_PATTERN);
/** The same after an upstream's name, which may have a port. */
const IMAGE_PATTERN_PATTERN =
  "^[a-z0-9._*-]+(?::[0-9]{1,5})?/[a-z0-9._/*-]+(?::[A-Za-z0-9._*-]+)?$|^[*]{2}(?::[A-Za-z0-9._*-]+)?$";
const IMAGE_PATTERN = new RegExp(IMAGE_PATTERN_PATTERN);
/** An upstream, which may have a port, and a repository; never a tag. */
const REPOSITORIES_PATTERN = "^[a-z0-9._/*:\\[\\]-]+$";
const REPOSITORIES = new RegExp(REPOSITORIES_PATTERN);
const NETWORK_PATTERN = "^[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?$";
const REALM_PATTERN = '^(?:https?://[^\\s@"\\\\#]+)?$';
const REALM = new RegExp(REALM_PATTERN);
const FLAW: FormFlaw = {};

export const FORMS: Readonly<Record<FormName, Form>> = {
  amount: {
    pattern: AMOUNT_PATTERN,
    findFlaw: (text) => (parseAmount(text) === undefined ? FLAW : undefined),
  },
  dailyShare: {
    pattern: DAILY_SHARE_PATTERN,
    findFlaw: (text) =>
      parseDailyShare(text) === undefined ? FLAW : undefined,
  },
  imagePattern: {
    pattern: IMAGE_PATTERN_PATTERN,
    findFlaw: (text) => (IMAGE_PATTERN.test(text) ? undefined : FLAW),
  },
  duration: {
    pattern: DURATION_PATTERN,
    findFlaw: (text) => (parseDuration(text) === undefined ? FLAW : undefined),
  },
  durationOrOff: {
    pattern: DURATION_OR_OFF_PATTERN,
    findFlaw: (text) =>
      parseDurationOrOff(text) === undefined ? FLAW : undefined,
  },
  listen: {
    pattern: LISTEN_PATTERN,
    findFlaw: (text) =>
      parseListenAddress(text) === undefined ? FLAW : undefined,
  },
  host: { pattern: HOST_PATTERN, findFlaw: findHostFlaw },
  registry: {
    // `/v2/v2/…` would be both the path before `/v2/` and the first component.
    pattern: `^(?!v2$)${HOST}(?::[0-9]{1,5})?$`,
    findFlaw: (text) => (text === "v2" ? FLAW : findHostFlaw(text)),
  },
  registryOrTemplate: {
    pattern: `^(?!v2$)(?:${HOST}|${TEMPLATE_HOST})(?::[0-9]{1,5})?$`,
    findFlaw: (text) => {
      if (text === "v2") return FLAW;
      if (!isTemplate(text)) return findHostFlaw(text);
      return TEMPLATE.test(text)
        ? undefined
        : {
            expected:
              'a template in lower case such as "*", "*.corp" or "*.corp:5000"',
          };
    },
  },
  endpoint: { pattern: ENDPOINT_PATTERN, findFlaw: findEndpointFlaw },
  network: {
    pattern: NETWORK_PATTERN,
    findFlaw: (text) => (parseNetwork(text) === undefined ? FLAW : undefined),
  },
  pattern: {
    pattern: PATTERN_PATTERN,
    findFlaw: (text) => (PATTERN.test(text) ? undefined : FLAW),
  },
  proxy: {
    pattern: PROXY_PATTERN,
    findFlaw: (text) =>
      text === "" || text === "none" || parseProxy(text) !== undefined
        ? undefined
        : // The text may hold a password.
          { seen: "an invalid proxy URL" },
  },
  hostedName: {
    pattern: HOSTED_NAME_PATTERN,
    findFlaw: (text) =>
      text.length <= MAX_HOSTED_NAME_LENGTH &&
      new RegExp(HOSTED_NAME_PATTERN).test(text)
        ? undefined
        : FLAW,
  },
  quota: { pattern: SIZE_PATTERN, findFlaw: findSizeFlaw },
  rate: { pattern: SIZE_PATTERN, findFlaw: findSizeFlaw },
  size: { pattern: SIZE_PATTERN, findFlaw: findSizeFlaw },
  schedule: {
    pattern: SCHEDULE_PATTERN,
    findFlaw: (text) =>
      new RegExp(SCHEDULE_PATTERN).test(text) ? undefined : FLAW,
  },
  tagPattern: {
    pattern: TAG_PATTERN_PATTERN,
    findFlaw: (text) =>
      new RegExp(TAG_PATTERN_PATTERN).test(text) ? undefined : FLAW,
  },
  webhook: {
    pattern: WEBHOOK_PATTERN,
    findFlaw: (text) => (isWebhook(text) ? undefined : FLAW),
  },
  redirectHost: {
    pattern: REDIRECT_HOST_PATTERN,
    findFlaw: findRedirectHostFlaw,
  },
  realm: {
    pattern: REALM_PATTERN,
    findFlaw: (text) =>
      text === "" || (REALM.test(text) && URL.canParse(text))
        ? undefined
        : FLAW,
  },
  repositories: { pattern: REPOSITORIES_PATTERN, findFlaw: findPatternFlaw },
};

/** Reads `HOST:PORT`; an IPv6 address stands in brackets, port 0 is any free port. */
export function parseListenAddress(text: string): ListenAddress | undefined {
  if (!LISTEN.test(text)) return undefined;
  const colon = text.lastIndexOf(":");
  const port = Number(text.slice(colon + 1));
  const written = text.slice(0, colon);
  const host = written.startsWith("[") ? written.slice(1, -1) : written;
  if (port > 65_535) return undefined;
  if (written.startsWith("[") && isIP(host) !== 6) return undefined;
  if (/^[0-9.]+$/.test(host) && isIP(host) !== 4) return undefined;
  return { host, port };
}

/** An address, or a network as its first address and the bits that its members share. */
export interface Network {
  readonly address: string;
  readonly family: "ipv4" | "ipv6";
  readonly prefixBits: number;
}

/** Reads `10.0.0.0/8`, `fd00::/8` or a single address. */
export function parseNetwork(text: string): Network | undefined {
  const [address = "", bits, ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return undefined;
  const most = version === 4 ? 32 : 128;
  if (bits !== undefined && !/^[0-9]{1,3}$/.test(bits)) return undefined;
  const prefixBits = bits === undefined ? most : Number(bits);
  return prefixBits > most
    ? undefined
    : { address, family: version === 4 ? "ipv4" : "ipv6", prefixBits };
}

export function formatListenAddress({ host, port }: ListenAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/**
 * Reads an absolute http(s) URL whose path, if any, is the first part of a repository's name.
 *
 * @returns the URL in normal form, without a trailing slash
 */
export function parseEndpoint(text: string): string | undefined {
  if (!ENDPOINT.test(text)) return undefined;
  const url = URL.parse(text);
  if (url === null || url.port === "0") return undefined;
  const path = url.pathname.replace(/\/$/, "");
  if (path !== "" && parseRepositoryName(path.slice(1)) === undefined) {
    return undefined;
  }
  return `${url.origin}${path}`;
}

/** Reports whether the bytes never leave the machine: 127.0.0.0/8, ::1 and `localhost` names (RFC 6761). */
export function isLoopbackUrl(url: string): boolean {
  const { hostname } = new URL(url);
  return (
    hostname === "[::1]" ||
    (isIP(hostname) === 4 && hostname.startsWith("127.")) ||
    /(?:^|\.)localhost\.?$/.test(hostname)
  );
}

/**
 * Reads the URL of a forward proxy; `proxy.corp:3128` of the environment is plain HTTP.
 *
 * @returns the URL in normal form, user name and password included
 */
export function parseProxy(text: string): string | undefined {
  const url = URL.parse(
    /^[a-z0-9]+:\/\//i.test(text) ? text : `http://${text}`,
  );
  if (url === null || !PROXY.test(url.href)) return undefined;
  return url.pathname === "/" && url.hostname !== "" && url.port !== "0"
    ? url.href
    : undefined;
}

function findSizeFlaw(text: string): FormFlaw | undefined {
  return parseSize(text) === undefined ? FLAW : undefined;
}

function isWebhook(text: string): boolean {
  const url = WEBHOOK.test(text) ? URL.parse(text) : null;
  return url !== null && url.hostname !== "" && url.port !== "0";
}

function findRedirectHostFlaw(text: string): FormFlaw | undefined {
  if (!REDIRECT_HOST.test(text)) return FLAW;
  return /[/:]/.test(text) && parseNetwork(text) === undefined
    ? { expected: "a CIDR such as 10.0.0.0/8 or fd00::/8, or a host" }
    : undefined;
}

function findHostFlaw(text: string): FormFlaw | undefined {
  if (!HOST_AND_PORT.test(text)) {
    return HOST_AND_PORT.test(text.toLowerCase())
      ? { expected: "lower case", fix: `write ${text.toLowerCase()}` }
      : FLAW;
  }
  const url = URL.parse(`https://${text}`);
  return url === null || url.port === "0" ? FLAW : undefined;
}

function findPatternFlaw(text: string): FormFlaw | undefined {
  if (!REPOSITORIES.test(text)) return FLAW;
  const colonAt = text.lastIndexOf(":");
  return colonAt !== -1 && !text.includes("/", colonAt)
    ? { expected: "a pattern of repositories, without a tag" }
    : undefined;
}

function findEndpointFlaw(text: string): FormFlaw | undefined {
  if (text.includes("@")) {
    return {
      seen: "a URL with a user name",
      expected: "a URL without one",
      fix: "move user name and password to credentials",
    };
  }
  if (/[?#]/.test(text)) {
    return {
      seen: "a URL with a query or a fragment",
      expected: "a URL without one",
    };
  }
  if (/^[a-z0-9.-]+(?::\d+)?(?:\/|$)/i.test(text)) {
    return { expected: "an absolute URL", fix: `write https://${text}` };
  }
  const endpoint = parseEndpoint(text);
  if (endpoint === undefined) return FLAW;
  return endpoint.endsWith("/v2")
    ? {
        expected: "the URL without /v2",
        fix: `write ${endpoint.slice(0, -3)}`,
      }
    : undefined;
}

/** Reports whether a key of `upstreams` stands for every registry whose name matches it. */
export function isTemplate(key: string): boolean {
  return key.includes("*");
}
