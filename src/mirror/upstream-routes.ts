import type { UpstreamConfig } from "../config/config.ts";
import type { RegistryErrorCode } from "../oci/errors.ts";
import {
  createUpstreamTemplates,
  type UpstreamTemplates,
} from "./upstream-templates.ts";
import {
  isSpelledName,
  parseRepositoryName,
  type RepositoryName,
} from "../oci/reference.ts";

/** Places where a request may name its upstream; each as the client sent it. */
export interface RouteHints {
  /** The path before `/v2/`. */
  readonly prefix: string | undefined;
  readonly ns: string | undefined;
  readonly host: string | undefined;
}

export interface RoutedRepository {
  readonly ok: true;
  readonly upstream: UpstreamConfig;
  /** Canonical: with `upstream.name` the key of all stored content, whatever the spelling was. */
  readonly repository: RepositoryName;
  /** The value of the response's `OCI-Namespace`: the client's `ns` if that decided. */
  readonly namespace: string | undefined;
}

export interface RoutedRegistry {
  readonly ok: true;
  /** Undefined if the client named none: the request is for all of them. */
  readonly upstream: UpstreamConfig | undefined;
  readonly namespace: string | undefined;
}

/** The parameters of a `RegistryError`. */
export interface RouteRefusal {
  readonly ok: false;
  readonly code: RegistryErrorCode;
  readonly detail: string;
  /** Present if the request named a registry that is not among the upstreams. */
  readonly unknown?: UnknownRegistry;
}

export interface UnknownRegistry {
  /** As the client wrote it. */
  readonly name: string;
  /** Where the name was: before `/v2/`, the first component of the repository, or in `ns`. */
  readonly by: "prefix" | "component" | "namespace";
}

/** Decides which upstream a request is for. Lookups only: no text of a client becomes an address. */
export interface UpstreamRoutes {
  /**
   * Applies the first hint that decides, in this order: the path before `/v2/`, the name's first
   * component, `ns`, `Host`, the default upstream.
   *
   * @param spelled the repository as it is in the path, as `parseDistributionPath` returns it
   */
  routeRepository(
    hints: RouteHints,
    spelled: string,
  ): RoutedRepository | RouteRefusal;
  /** Routes requests without a repository: the ping and the catalog. Ignores the default upstream. */
  routeRegistry(hints: RouteHints): RoutedRegistry | RouteRefusal;
  /**
   * Returns the upstream of a canonical name, as it is in the keys of the cache: a configured one, or
   * one created from a template.
   */
  findUpstream(name: string): UpstreamConfig | undefined;
  /**
   * Returns the name by which the catalog lists an upstream, so that its content can be pulled by
   * that name: its key or, if the key has a port, its first alias that is a legal component of a
   * repository.
   *
   * @param upstream a key; undefined is returned if it is not configured
   */
  listedName(upstream: string): string | undefined;
}

/**
 * Builds the routes of a configuration.
 *
 * @param upstreams in the configuration's order; the first of two that share a name or hostname has it
 * @param templateConfigs for registries that requests name and that are not among the upstreams
 */
export function createUpstreamRoutes(
  upstreams: readonly UpstreamConfig[],
  templateConfigs: readonly UpstreamConfig[] = [],
): UpstreamRoutes {
  return new ConfiguredRoutes(upstreams, templateConfigs);
}

class ConfiguredRoutes implements UpstreamRoutes {
  readonly #byName = new Map<string, UpstreamConfig>();
  readonly #byHostname = new Map<string, UpstreamConfig>();
  readonly #default: UpstreamConfig | undefined;
  readonly #templates: UpstreamTemplates;

  constructor(
    upstreams: readonly UpstreamConfig[],
    templateConfigs: readonly UpstreamConfig[],
  ) {
    const [byName, byHostname] = [this.#byName, this.#byHostname];
    for (const upstream of upstreams) addOnce(byName, upstream.name, upstream);
    for (const upstream of upstreams) {
      for (const alias of upstream.aliases) addOnce(byName, alias, upstream);
      for (const host of upstream.hostnames) {
        addOnce(byHostname, host, upstream);
      }
    }
    this.#default = upstreams.find(({ isDefault }) => isDefault);
    this.#templates = createUpstreamTemplates(templateConfigs, (name) =>
      byName.has(name),
    );
  }

  findUpstream(name: string): UpstreamConfig | undefined {
    const upstream = this.#find(name);
    return upstream?.name === name ? upstream : undefined;
  }

  listedName(name: string): string | undefined {
    const upstream = this.findUpstream(name);
    return upstream && [name, ...upstream.aliases].find(isSpelledName);
  }

  routeRepository(
    hints: RouteHints,
    spelled: string,
  ): RoutedRepository | RouteRefusal {
    const slashAt = `${spelled}/`.indexOf("/");
    const component = spelled.slice(0, slashAt);
    const choice = this.#choose(hints, component);
    if ("ok" in choice) return choice;
    const isForeign =
      choice.by === "nothing" &&
      slashAt < spelled.length &&
      looksLikeRegistry(component) &&
      lookUp(this.#byName, component) === undefined;
    // A name with a port is not a legal component.
    const templated =
      isForeign && !component.includes(":") && component !== "localhost"
        ? this.#find(component)
        : undefined;
    const by = templated === undefined ? choice.by : "component";
    const upstream = templated ?? choice.upstream ?? this.#default;
    if (upstream === undefined) return NO_DEFAULT;
    if (isForeign && templated === undefined) {
      return unknown({ by: "component", name: component });
    }
    const rest = by === "component" ? spelled.slice(slashAt + 1) : spelled;
    const repository = canonicalName(upstream, rest);
    if (repository === undefined) return INVALID_NAME;
    const namespace = by === "namespace" ? hints.ns : undefined;
    return { ok: true, upstream, repository, namespace };
  }

  routeRegistry(hints: RouteHints): RoutedRegistry | RouteRefusal {
    const choice = this.#choose(hints, undefined);
    if ("ok" in choice) return choice;
    const namespace = choice.by === "namespace" ? hints.ns : undefined;
    return { ok: true, upstream: choice.upstream, namespace };
  }

  #choose(
    { prefix, ns, host }: RouteHints,
    component: string | undefined,
  ): Choice | RouteRefusal {
    if (prefix !== undefined) {
      const upstream = this.#find(prefix);
      return upstream === undefined
        ? unknown({ by: "prefix", name: prefix })
        : { upstream, by: "prefix" };
    }
    // A name with a port is not a legal component.
    const named = component?.includes(":")
      ? undefined
      : lookUp(this.#byName, component);
    if (named !== undefined) return { upstream: named, by: "component" };
    if (ns !== undefined) {
      const upstream = this.#find(ns);
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
      lookUp(this.#byHostname, host) ??
      lookUp(this.#byHostname, withoutPort(host));
    return upstream === undefined ? NO_CHOICE : { upstream, by: "host" };
  }

  #find(text: string): UpstreamConfig | undefined {
    const name = normaliseName(text);
    if (name === undefined) return undefined;
    return this.#byName.get(name) ?? this.#templates.find(name);
  }
}

interface Choice {
  readonly upstream: UpstreamConfig | undefined;
  readonly by: "prefix" | "component" | "namespace" | "host" | "nothing";
}

const NO_CHOICE: Choice = { upstream: undefined, by: "nothing" };

/**
 * Whether engines read the first of several components as a registry. A repository of one component,
 * such as `node.js`, is never a registry.
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
  // The grammar has accepted a component; the other places can contain any text.
  const described = by === "component" ? name.toLowerCase() : PLACES[by];
  return {
    ok: false,
    code: "NAME_UNKNOWN",
    detail: `${described} is not among the upstreams`,
    unknown: registry,
  };
}

const NO_DEFAULT: RouteRefusal = {
  ok: false,
  code: "NAME_UNKNOWN",
  detail: "the request names no upstream, and no default is configured",
};

const INVALID_NAME: RouteRefusal = {
  ok: false,
  code: "NAME_INVALID",
  detail: "repository name is empty, too long or breaks the grammar",
};

/** An empty name stays invalid: `library/` breaks the grammar too. */
function canonicalName(
  upstream: UpstreamConfig,
  name: string,
): RepositoryName | undefined {
  const needsLibrary = upstream.libraryPrefix && !name.includes("/");
  return parseRepositoryName(needsLibrary ? `library/${name}` : name);
}

/** Characters of host names, ports and IPv6 literals; excludes letters whose lower case is ASCII. */
const NAME = /^[A-Za-z0-9._:[\]-]+$/;
/** Longer than any host with a port. */
const MAX_NAME_LENGTH = 300;

/**
 * Normalises a host name, which means the same in any case and with or without a trailing dot.
 * Returns undefined for other text, so that a name that was found is also valid in a header.
 */
function normaliseName(text: string): string | undefined {
  return text.length <= MAX_NAME_LENGTH && NAME.test(text)
    ? text.toLowerCase().replace(/\.(?=:[0-9]+$|$)/, "")
    : undefined;
}

/** An IPv6 literal is in brackets, so a port follows the last colon after them. */
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
