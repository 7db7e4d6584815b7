import { LRUCache } from "lru-cache";
import type { UpstreamConfig } from "../config/config.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
  DOCKER_HUB_ENDPOINT,
} from "../config/schema/well-known-upstreams.ts";
import { compilePattern, type PatternMatcher } from "../oci/glob.ts";

/** Configurations that were made for names; a client may name any number. */
const MAX_MADE = 1_000;

/** Makes upstreams of names, by the templates of the configuration. */
export interface UpstreamTemplates {
  /**
   * The configuration for a registry that a request names. Nothing is dialled, and nothing but a
   * bounded memory of names is kept.
   *
   * @param name in lower case, without the root's dot; with the port 443 it is the name without one
   * @returns undefined if no template matches, or if it is not a host with an optional port
   */
  find(name: string): UpstreamConfig | undefined;
}

interface Template {
  readonly config: UpstreamConfig;
  /** Of the host, and of the port in the place of a tag: without one in the template any port matches. */
  readonly matches: PatternMatcher;
  readonly specificity: number;
}

/** @param isConfigured whether a name has an upstream of its own, which no template replaces */
export function createUpstreamTemplates(
  templates: readonly UpstreamConfig[],
  isConfigured: (name: string) => boolean,
): UpstreamTemplates {
  // Sorting is stable: of two that are as specific the first of the file wins.
  const compiled = templates
    .map((config): Template => ({
      config,
      matches: compilePattern(config.name),
      specificity: config.name.replaceAll("*", "").length,
    }))
    .toSorted((one, other) => other.specificity - one.specificity);
  const made = new LRUCache<string, UpstreamConfig>({ max: MAX_MADE });
  return {
    find(written) {
      if (compiled.length === 0) return undefined;
      const known = made.get(written);
      if (known !== undefined) return known;
      const host = parseHost(written);
      if (host === undefined) return undefined;
      // Otherwise a client that writes the port out gets past the settings of the registry's key.
      const name = host.port === HTTPS_PORT ? host.hostname : written;
      if (isConfigured(name)) return undefined;
      const template = compiled.find(({ matches }) =>
        matches(host.hostname, host.port),
      );
      if (template === undefined) return undefined;
      const isHub = name === DOCKER_HUB || DOCKER_HUB_ALIASES.includes(name);
      const config =
        isHub && !isConfigured(DOCKER_HUB)
          ? makeHub(template.config)
          : make(template.config, name);
      made.set(written, config);
      return config;
    },
  };
}

function make(template: UpstreamConfig, name: string): UpstreamConfig {
  return Object.freeze({
    ...template,
    name,
    template: template.name,
    endpoints: Object.freeze([`https://${name}`]),
  });
}

/** Docker Hub's API is at another name, and its several names are one registry. */
function makeHub(template: UpstreamConfig): UpstreamConfig {
  return Object.freeze({
    ...make(template, DOCKER_HUB),
    endpoints: Object.freeze([DOCKER_HUB_ENDPOINT]),
    libraryPrefix: true,
  });
}

const HTTPS_PORT = "443";

const LABEL = "[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?";
const HOST_AND_PORT = new RegExp(
  `^(${LABEL}(?:\\.${LABEL})*|\\[[0-9a-f:.]+\\])(?::([0-9]{1,5}))?$`,
);

/**
 * A name that means the same to a URL: no user, path or query, and no other spelling of an address
 * (`0x7f.1`, `2130706433`) or of a port (`0443`).
 */
function parseHost(
  name: string,
): { readonly hostname: string; readonly port: string } | undefined {
  const [, hostname = "", port = HTTPS_PORT] = HOST_AND_PORT.exec(name) ?? [];
  const url = URL.parse(`https://${name}`);
  return url?.hostname === hostname &&
    (url.port || HTTPS_PORT) === port &&
    url.pathname === "/"
    ? { hostname, port }
    : undefined;
}
