import type { UpstreamConfig } from "../config/config.ts";
import type { RegistryErrorCode } from "../oci/errors.ts";
import { createUpstreamTemplates } from "./upstream-templates.ts";
import {
  isSpelledName,
  parseRepositoryName,
  type RepositoryName,
} from "../oci/reference.ts";

/** Where a request may name its upstream; each as the client sent it. */
export interface RouteHints {
  /** What stands before `/v2/` in the path. */
  readonly prefix: string | undefined;
  readonly ns: string | undefined;
  readonly host: string | undefined;
}

export interface RoutedRepository {
  readonly ok: true;
  readonly upstream: UpstreamConfig;
  /** Canonical: with `upstream.name` the key of everything behind, whatever the spelling was. */
  readonly repository: RepositoryName;
  /** To be answered as `OCI-Namespace`: the client's `ns`, where it was what decided. */
  readonly namespace: string | undefined;
}

export interface RoutedRegistry {
  readonly ok: true;
  /** Undefined where the client named none: all of them. */
  readonly upstream: UpstreamConfig | undefined;
  readonly namespace: string | undefined;
}

/** Fits `RegistryError(code, refusal)`. */
export interface RouteRefusal {
  readonly ok: false;
  readonly code: RegistryErrorCode;
  readonly detail: string;
  /** Set if the request named a registry that is not among the upstreams. */
  readonly unknown?: UnknownRegistry;
}

export interface UnknownRegistry {
  /** As the client wrote it. */
  readonly name: string;
  /** Where it stood: before `/v2/`, as first component of the repository, or in `ns`. */
  readonly by: "prefix" | "component" | "namespace";
}

/** Which upstream a request is for. Look-ups only: no text of a client ever becomes an address. */
export interface UpstreamRoutes {
  /**
   * In this order the first hint that decides is applied, and no other: the path before `/v2/`,
   * the name's first component, `ns`, `Host`, the default upstream.
   *
   * @param spelled the repository as it stands in the path, as `parseDistributionPath` gives it
   */
  routeRepository(
    hints: RouteHints,
    spelled: string,
  ): RoutedRepository | RouteRefusal;
  /** For requests without a repository: the ping and the catalog. The default upstream is no hint here. */
  routeRegistry(hints: RouteHints): RoutedRegistry | RouteRefusal;
  /**
   * The upstream of a canonical name, as it is in the keys of the cache: a configured one, or one
   * made from a template.
   */
  findUpstream(name: string): UpstreamConfig | undefined;
  /**
   * The name by which the catalog lists an upstream, so that what it lists can be pulled: its key, or
   * if that has a port its first alias that is a legal component of a repository.
   *
   * @param upstream a key; undefined is returned for one that is not in force
   */
  listedName(upstream: string): string | undefined;
}

/**
 * @param upstreams in the configuration's order; where two share a name or a hostname the first has it
 * @param templateConfigs for registries that requests name and that none of these are
 */
export function createUpstreamRoutes(
  upstreams: readonly UpstreamConfig[],
  templateConfigs: readonly UpstreamConfig[] = [],
): UpstreamRoutes {
  const byName = new Map<string, UpstreamConfig>();
  const byHostname = new Map<string, UpstreamConfig>();
  for (const upstream of upstreams) addOnce(byName, upstream.name, upstream);
  for (const upstream of upstreams) {
    for (const alias of upstream.aliases) addOnce(byName, alias, upstream);
    for (const host of upstream.hostnames) addOnce(byHostname, host, upstream);
  }
  const defaultUpstream = upstreams.find(({ isDefault }) => isDefault);
  const templates = createUpstreamTemplates(templateConfigs, (name) =>
    byName.has(name),
  );
  const findUpstream = (text: string): UpstreamConfig | undefined => {
    const name = normaliseName(text);
    if (name === undefined) return undefined;
    return byName.get(name) ?? templates.find(name);
  };

  const choose = (
    { prefix, ns, host }: RouteHints,
    component: string | undefined,
  ): Choice | RouteRefusal => {
    if (prefix !== undefined) {
      const upstream = findUpstream(prefix);
      return upstream === undefined
        ? unknown({ by: "prefix", name: prefix })
        : { upstream, by: "prefix" };
    }
    // A name with a port is not a legal component.
    const named = component?.includes(":")
      ? undefined
      : lookUp(byName, component);
    if (named !== undefined) return { upstream: named, by: "component" };
    if (ns !== undefined) {
      const upstream = findUpstream(ns);
      if (upstream === undefined) {
        return unknown({ by: "namespace", name: ns });
      }
      // k3s and BuildKit send a registry's name in both places.
      const isTwice =
        upstream.template !== undefined &&
        component !== undefined &&
        normaliseName(component) === normaliseName(ns);
      return { upstream, by: isTwice ? "component" : "namespace" };
    }
    const upstream =
      lookUp(byHostname, host) ?? lookUp(byHostname, withoutPort(host));
    return upstream === undefined ? NO_CHOICE : { upstream, by: "host" };
  };

  return {
    findUpstream(name) {
      const upstream = findUpstream(name);
      return upstream?.name === name ? upstream : undefined;
    },

    listedName(name) {
      const upstream = findUpstream(name);
      return upstream?.name === name
        ? [name, ...upstream.aliases].find(isSpelledName)
        : undefined;
    },

    routeRepository(hints, spelled) {
      const slashAt = `${spelled}/`.indexOf("/");
      const component = spelled.slice(0, slashAt);
      const choice = choose(hints, component);
      if ("ok" in choice) return choice;
      const isForeign =
        choice.by === "nothing" &&
        slashAt < spelled.length &&
        looksLikeRegistry(component) &&
        lookUp(byName, component) === undefined;
      // A name with a port is not a legal component.
      const templated =
        isForeign && !component.includes(":") && component !== "localhost"
          ? findUpstream(component)
          : undefined;
      const by = templated === undefined ? choice.by : "component";
      const upstream = templated ?? choice.upstream ?? defaultUpstream;
      if (upstream === undefined) return NO_DEFAULT;
      if (isForeign && templated === undefined) {
        return unknown({ by: "component", name: component });
      }
      const rest = by === "component" ? spelled.slice(slashAt + 1) : spelled;
      const repository = canonicalName(upstream, rest);
      if (repository === undefined) return INVALID_NAME;
      const namespace = by === "namespace" ? hints.ns : undefined;
      return { ok: true, upstream, repository, namespace };
    },

    routeRegistry(hints) {
      const choice = choose(hints, undefined);
      if ("ok" in choice) return choice;
      const namespace = choice.by === "namespace" ? hints.ns : undefined;
      return { ok: true, upstream: choice.upstream, namespace };
    },
  };
}

interface Choice {
  readonly upstream: UpstreamConfig | undefined;
  readonly by: "prefix" | "component" | "namespace" | "host" | "nothing";
}

const NO_CHOICE: Choice = { upstream: undefined, by: "nothing" };

/**
 * An engine takes the first of several components for a registry if it looks like this. A repository
 * of one component, such as `node.js`, is never a registry.
 */
export function looksLikeRegistry(component: string): boolean {
  return /[.:]/.test(component) || component === "localhost";
}

const PLACES: Readonly<Record<"prefix" | "namespace", string>> = {
  prefix: "the name before /v2/",
  namespace: "the name in ns",
};

function unknown(registry: UnknownRegistry): RouteRefusal {
  const { by, name } = registry;
  // A component has been judged by the grammar; the others are any text.
  const told = by === "component" ? name.toLowerCase() : PLACES[by];
  return {
    ok: false,
    code: "NAME_UNKNOWN",
    detail: `${told} is not among the upstreams`,
    unknown: registry,
  };
}

const NO_DEFAULT: RouteRefusal = {
  ok: false,
  code: "NAME_UNKNOWN",
  detail: "no upstream was named and none is the default",
};

const INVALID_NAME: RouteRefusal = {
  ok: false,
  code: "NAME_INVALID",
  detail: "repository name is empty, too long or breaks the grammar",
};

/** An empty name stays no name: `library/` breaks the grammar too. */
function canonicalName(
  upstream: UpstreamConfig,
  name: string,
): RepositoryName | undefined {
  const needsLibrary = upstream.libraryPrefix && !name.includes("/");
  return parseRepositoryName(needsLibrary ? `library/${name}` : name);
}

/** Characters of host names, ports and IPv6 literals; without the letters that lower-case to ASCII ones. */
const NAME = /^[A-Za-z0-9._:[\]-]+$/;
/** Longer than any host with a port. */
const MAX_NAME_LENGTH = 300;

/**
 * Host names are equal whatever their case and with or without the root's dot. Undefined where
 * the text is none, so that what was found is also fit for a header.
 */
function normaliseName(text: string): string | undefined {
  return text.length <= MAX_NAME_LENGTH && NAME.test(text)
    ? text.toLowerCase().replace(/\.(?=:[0-9]+$|$)/, "")
    : undefined;
}

/** An IPv6 literal stands in brackets, so a port is what follows the last colon behind them. */
function withoutPort(host: string | undefined): string | undefined {
  return host?.replace(/:[0-9]*$/, "");
}

function lookUp(
  names: ReadonlyMap<string, UpstreamConfig>,
  text: string | undefined,
): UpstreamConfig | undefined {
  const name = text === undefined ? undefined : normaliseName(text);
  return name === undefined ? undefined : names.get(name);
}

function addOnce(
  names: Map<string, UpstreamConfig>,
  text: string,
  upstream: UpstreamConfig,
): void {
  const name = normaliseName(text);
  if (name !== undefined && !names.has(name)) names.set(name, upstream);
}
