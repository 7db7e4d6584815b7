import { LRUCache } from "lru-cache";
import type { UpstreamConfig } from "../config/config.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
  DOCKER_HUB_ENDPOINT,
} from "../config/schema/well-known-upstreams.ts";
import { compilePattern, type PatternMatcher } from "../oci/glob.ts";

/** Configurations created from templates; a client may name any number of registries. */
const MAX_CREATED = 1_000;

/** Creates the configuration of an upstream from its name and the configured templates. */
export interface UpstreamTemplates {
  /**
   * Returns the configuration for a registry that a request names. Opens no connection, and keeps
   * only a bounded number of names.
   *
   * @param name in lower case, without a trailing dot; `NAME:443` is treated as `NAME`
   * @returns undefined if no template matches, or if the name is not a host with an optional port
   */
  find(name: string): UpstreamConfig | undefined;
}

interface Template {
  readonly config: UpstreamConfig;
  /** Matches the host, and the port in place of a tag: a template without a port matches any. */
  readonly matches: PatternMatcher;
  readonly specificity: number;
}

/** @param isConfigured whether a name has an upstream of its own, which no template replaces */
export function createUpstreamTemplates(
  templates: readonly UpstreamConfig[],
  isConfigured: (name: string) => boolean,
): UpstreamTemplates {
  // Sorting is stable: of two equally specific templates the first in the file is used.
  const compiled = templates
    .map((config): Template => ({
      config,
      matches: compilePattern(config.name),
      specificity: config.name.replaceAll("*", "").length,
    }))
    .toSorted((one, other) => other.specificity - one.specificity);
  const created = new LRUCache<string, UpstreamConfig>({ max: MAX_CREATED });
  return {
    find(written) {
      if (compiled.length === 0) return undefined;
      const known = created.get(written);
      if (known !== undefined) return known;
      const host = parseHost(written);
      if (host === undefined) return undefined;
      // Otherwise a client that spells out the port would bypass the settings of the registry's key.
      const name = host.port === HTTPS_PORT ? host.hostname : written;
      if (isConfigured(name)) return undefined;
      const template = compiled.find(({ matches }) =>
        matches(host.hostname, host.port),
      );
      if (template === undefined) return undefined;
      const isHub = name === DOCKER_HUB || DOCKER_HUB_ALIASES.includes(name);
      const config =
        isHub && !isConfigured(DOCKER_HUB)
          ? createHub(template.config)
          : create(template.config, name);
      created.set(written, config);
      return config;
    },
  };
}

function create(template: UpstreamConfig, name: string): UpstreamConfig {
  return Object.freeze({
    ...template,
    name,
    template: template.name,
    endpoints: Object.freeze([`https://${name}`]),
  });
}

/** The API of Docker Hub has another host name, and all names of Docker Hub mean one registry. */
function createHub(template: UpstreamConfig): UpstreamConfig {
  return Object.freeze({
    ...create(template, DOCKER_HUB),
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
 * Parses a name that a URL parser reads identically: without user, path or query, and without
 * another spelling of an address (`0x7f.1`, `2130706433`) or of a port (`0443`).
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
