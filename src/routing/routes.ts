import type { HostedConfig, UpstreamConfig } from "../config/config.ts";
import type { RegistryErrorCode } from "../oci/errors.ts";
import {
  createUpstreamTemplates,
  type UpstreamTemplates,
} from "./upstream-templates.ts";
import {
  isSpelledName,
  parseRepositoryName,
  type RepositoryKey,
  type RepositoryName,
} from "../oci/reference.ts";

/** Places where a request may name its registry; each as the client sent it. */
export interface RouteHints {
  /** The path before `/v2/`. */
  readonly prefix: string | undefined;
  readonly ns: string | undefined;
  readonly host: string | undefined;
}

/** A registry that requests can name. */
export type Registry =
  | { readonly kind: "mirrored"; readonly upstream: UpstreamConfig }
  | { readonly kind: "hosted"; readonly hosted: HostedConfig };

/** Returns the key of a registry in the configuration: of an upstream or of a hosted registry. */
export function registryName(registry: Registry): string {
  return registry.kind === "mirrored"
    ? registry.upstream.name
    : registry.hosted.name;
}

/** Returns the key of a routed repository: the same for every spelling of it. */
export function repositoryKey(
  routed: RoutedRepository | RoutedHosted,
): RepositoryKey {
  return { upstream: registryName(routed), repository: routed.repository };
}

/** A repository of an upstream. */
export interface RoutedRepository {
  readonly ok: true;
  readonly kind: "mirrored";
  readonly upstream: UpstreamConfig;
  /** Canonical: with `upstream.name` the key of all stored content, whatever the spelling was. */
  readonly repository: RepositoryName;
  /** The value of the response's `OCI-Namespace`: the client's `ns` if that decided. */
  readonly namespace: string | undefined;
}

/** A repository that is hosted here. */
export interface RoutedHosted {
  readonly ok: true;
  readonly kind: "hosted";
  readonly hosted: HostedConfig;
  readonly repository: RepositoryName;
  readonly namespace: string | undefined;
}

export interface RoutedRegistry {
  readonly ok: true;
  /** Undefined if the client named none: the request is for all registries. */
  readonly registry: Registry | undefined;
  readonly namespace: string | undefined;
}

/** The parameters of a `RegistryError`. */
export interface RouteRefusal {
  readonly ok: false;
  readonly code: RegistryErrorCode;
  readonly detail: string;
  /** Present if the request named a registry that is not configured. */
  readonly unknown?: UnknownRegistry;
}

export interface UnknownRegistry {
  /** As the client wrote it. */
  readonly name: string;
  /** Where the name was: before `/v2/`, the first component of the repository, or in `ns`. */
  readonly by: "prefix" | "component" | "namespace";
}

/** Decides which registry a request is for. Lookups only: no text of a client becomes an address. */
export interface Routes {
  /** The `Host` values that select a registry, in lower case. */
  readonly hostnames: ReadonlySet<string>;
  /**
   * Applies the first hint that decides, in this order: the path before `/v2/`, the name's first
   * component, `ns`, `Host`, the default registry. The name of a hosted registry decides as a first
   * component only without `ns`, or if `ns` names it too.
   *
   * @param spelled the repository as it is in the path, as `parseDistributionPath` returns it
   */
  routeRepository(
    hints: RouteHints,
    spelled: string,
  ): RoutedRepository | RoutedHosted | RouteRefusal;
  /** Routes requests without a repository: the ping and the catalog. Ignores the default registry. */
  routeRegistry(hints: RouteHints): RoutedRegistry | RouteRefusal;
  /**
   * Returns the upstream of a canonical name, as it is in the keys of the cache: a configured one, or
   * one created from a template.
   */
  findUpstream(name: string): UpstreamConfig | undefined;
  /**
   * Returns the name by which the catalog lists a registry, so that its content can be pulled by
   * that name: its key or, if the key has a port, its first alias that is a legal component of a
   * repository.
   *
   * @param registry a key; undefined is returned if it is not configured. The hosted default is
   *   listed by the empty text: its repositories are pulled without its name
   */
  listedName(registry: string): string | undefined;
  findHosted(name: string): HostedConfig | undefined;
  /**
   * Returns the name of the hosted registry that clients may push to instead of a mirrored one; empty
   * for the hosted default, undefined if nothing is hosted.
   */
  pushTarget(): string | undefined;
}

/**
 * Builds the routes of a configuration.
 *
 * @param upstreams in the configuration's order; the first of two that share a name or hostname has it
 * @param templateConfigs for registries that requests name and that are not among the upstreams
 * @param reserved names that match no template
 */
export function createRoutes(
  upstreams: readonly UpstreamConfig[],
  templateConfigs: readonly UpstreamConfig[] = [],
  hosted: readonly HostedConfig[] = [],
  reserved: ReadonlySet<string> = NO_NAMES,
): Routes {
  return new ConfiguredRoutes(upstreams, templateConfigs, hosted, reserved);
}

const NO_NAMES: ReadonlySet<string> = new Set();

class ConfiguredRoutes implements Routes {
  readonly hostnames: ReadonlySet<string>;
  readonly #byName = new Map<string, Registry>();
  readonly #byHostname = new Map<string, Registry>();
  readonly #hosted: readonly HostedConfig[];
  readonly #default: Registry | undefined;
  readonly #templates: UpstreamTemplates;

  constructor(
    upstreams: readonly UpstreamConfig[],
    templateConfigs: readonly UpstreamConfig[],
    hosted: readonly HostedConfig[],
    reserved: ReadonlySet<string>,
  ) {
    this.#hosted = hosted;
    const [byName, byHostname] = [this.#byName, this.#byHostname];
    const mirrored = upstreams.map((upstream) => ({
      registry: { kind: "mirrored", upstream } as const,
      ...upstream,
    }));
    const registries = [
      ...mirrored,
      ...hosted.map((config) => ({
        registry: { kind: "hosted", hosted: config } as const,
        ...config,
      })),
    ];
    for (const { name, registry } of registries)
      addOnce(byName, name, registry);
    for (const { aliases, registry } of mirrored) {
      for (const alias of aliases) addOnce(byName, alias, registry);
    }
    for (const { hostnames, registry } of registries) {
      for (const host of hostnames) addOnce(byHostname, host, registry);
    }
    this.hostnames = new Set(byHostname.keys());
    // A hosted default replaces the built-in one; the configuration rejects two written ones.
    this.#default = registries.findLast(({ isDefault }) => isDefault)?.registry;
    this.#templates = createUpstreamTemplates(
      templateConfigs,
      (name) => byName.has(name) || reserved.has(name),
    );
  }

  findUpstream(name: string): UpstreamConfig | undefined {
    const registry = this.#find(name);
    return registry?.kind === "mirrored" && registry.upstream.name === name
      ? registry.upstream
      : undefined;
  }

  pushTarget(): string | undefined {
    const hosted = this.#hosted;
    const [first] = hosted;
    return hosted.some(({ isDefault }) => isDefault) ? "" : first?.name;
  }

  findHosted(name: string): HostedConfig | undefined {
    const registry = this.#byName.get(name);
    return registry?.kind === "hosted" ? registry.hosted : undefined;
  }

  listedName(name: string): string | undefined {
    const hosted = this.findHosted(name);
    if (hosted !== undefined) return hosted.isDefault ? "" : name;
    const upstream = this.findUpstream(name);
    return upstream && [name, ...upstream.aliases].find(isSpelledName);
  }

  routeRepository(
    hints: RouteHints,
    spelled: string,
  ): RoutedRepository | RoutedHosted | RouteRefusal {
    const slashAt = `${spelled}/`.indexOf("/");
    const component = spelled.slice(0, slashAt);
    const choice = this.#choose(hints, component);
    if ("ok" in choice) return choice;
    const mayBeForeign =
      choice.by === "nothing" &&
      slashAt < spelled.length &&
      looksLikeRegistry(component);
    // A name with a port is not a legal component.
    const templated =
      mayBeForeign && !component.includes(":") && component !== "localhost"
        ? this.#find(component)
        : undefined;
    const by = templated === undefined ? choice.by : "component";
    const registry = templated ?? choice.registry ?? this.#default;
    if (registry === undefined) return NO_DEFAULT;
    if (
      mayBeForeign &&
      templated === undefined &&
      registry.kind !== "hosted" &&
      lookUp(this.#byName, component) === undefined
    ) {
      return unknown({ by: "component", name: component });
    }
    const rest = by === "component" ? spelled.slice(slashAt + 1) : spelled;
    const repository = canonicalName(registry, rest);
    if (repository === undefined) return INVALID_NAME;
    const namespace = by === "namespace" ? hints.ns : undefined;
    return { ok: true, ...registry, repository, namespace };
  }

  routeRegistry(hints: RouteHints): RoutedRegistry | RouteRefusal {
    const choice = this.#choose(hints, undefined);
    if ("ok" in choice) return choice;
    const namespace = choice.by === "namespace" ? hints.ns : undefined;
    return { ok: true, registry: choice.registry, namespace };
  }

  #choose(
    { prefix, ns, host }: RouteHints,
    component: string | undefined,
  ): Choice | RouteRefusal {
    if (prefix !== undefined) {
      const registry = this.#find(prefix);
      return registry === undefined
        ? unknown({ by: "prefix", name: prefix })
        : { registry, by: "prefix" };
    }
    // A name with a port is not a legal component.
    const named = component?.includes(":")
      ? undefined
      : lookUp(this.#byName, component);
    if (
      named !== undefined &&
      (named.kind === "mirrored" ||
        ns === undefined ||
        this.#find(ns) === named)
    ) {
      return { registry: named, by: "component" };
    }
    if (ns !== undefined) {
      const registry = this.#find(ns);
      if (registry === undefined) {
        return unknown({ by: "namespace", name: ns });
      }
      // k3s and BuildKit send a registry's name in both places.
      const isTwice =
        registry.kind === "mirrored" &&
        registry.upstream.template !== undefined &&
        component !== undefined &&
        normaliseName(component) === normaliseName(ns);
      return { registry, by: isTwice ? "component" : "namespace" };
    }
    const registry =
      lookUp(this.#byHostname, host) ??
      lookUp(this.#byHostname, withoutPort(host));
    return registry === undefined ? NO_CHOICE : { registry, by: "host" };
  }

  #find(text: string): Registry | undefined {
    const name = normaliseName(text);
    if (name === undefined) return undefined;
    const configured = this.#byName.get(name);
    if (configured !== undefined) return configured;
    const upstream = this.#templates.find(name);
    return upstream && { kind: "mirrored", upstream };
  }
}

interface Choice {
  readonly registry: Registry | undefined;
  readonly by: "prefix" | "component" | "namespace" | "host" | "nothing";
}

const NO_CHOICE: Choice = { registry: undefined, by: "nothing" };

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
    detail: `${described} is not among the upstreams or hosted registries`,
    unknown: registry,
  };
}

const NO_DEFAULT: RouteRefusal = {
  ok: false,
  code: "NAME_UNKNOWN",
  detail: "the request names no registry, and no default is configured",
};

const INVALID_NAME: RouteRefusal = {
  ok: false,
  code: "NAME_INVALID",
  detail: "repository name is empty, too long or breaks the grammar",
};

/** An empty name stays invalid: `library/` breaks the grammar too. */
function canonicalName(
  registry: Registry,
  name: string,
): RepositoryName | undefined {
  const needsLibrary =
    registry.kind === "mirrored" &&
    registry.upstream.libraryPrefix &&
    !name.includes("/");
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
  names: ReadonlyMap<string, Registry>,
  text: string | undefined,
): Registry | undefined {
  const name = text === undefined ? undefined : normaliseName(text);
  return name === undefined ? undefined : names.get(name);
}

function addOnce(
  names: Map<string, Registry>,
  text: string,
  registry: Registry,
): void {
  const name = normaliseName(text);
  if (name !== undefined && !names.has(name)) names.set(name, registry);
}
