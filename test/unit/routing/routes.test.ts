import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import type { UpstreamConfig } from "../../../src/config/config.ts";
import {
  createRoutes,
  registryName,
  type RouteHints,
} from "../../../src/routing/routes.ts";
import {
  formatDistributionPath,
  parseDistributionPath,
} from "../../../src/oci/path.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

function upstream(
  name: string,
  more: Partial<UpstreamConfig> = {},
): UpstreamConfig {
  return {
    ...UPSTREAM_DEFAULTS,
    name,
    endpoints: [`https://${name}`],
    ...more,
  };
}

const hub = upstream("docker.io", {
  isDefault: true,
  libraryPrefix: true,
  aliases: ["index.docker.io", "registry-1.docker.io", "hub"],
  hostnames: ["hub.mirror.internal", "[fd00::1]"],
});
const quay = upstream("quay.io", { hostnames: ["quay.mirror.internal:5000"] });
const corp = upstream("registry.corp:5000", { aliases: ["corp"] });
const upstreams = [hub, quay, corp];
const routes = createRoutes(upstreams);
const noHints: RouteHints = {
  prefix: undefined,
  ns: undefined,
  host: undefined,
};

function routeText(
  repository: string,
  hints: Partial<RouteHints> = {},
  from = routes,
): string {
  const routed = from.routeRepository({ ...noHints, ...hints }, repository);
  if (!routed.ok) return routed.code;
  const namespace =
    routed.namespace === undefined ? "" : ` ${routed.namespace}`;
  return `${registryName(routed)} ${routed.repository}${namespace}`;
}

void describe("createRoutes", () => {
  const table: readonly {
    name: string;
    repository: string;
    hints?: Partial<RouteHints>;
    want: string;
  }[] = [
    {
      name: "a name without hints goes to the default upstream",
      repository: "library/alpine",
      want: "docker.io library/alpine",
    },
    {
      name: "a name of one component gets library/ at the default upstream",
      repository: "alpine",
      want: "docker.io library/alpine",
    },
    {
      name: "a Host that is not an upstream's is ignored",
      repository: "alpine",
      hints: { host: "mirror.internal:5000" },
      want: "docker.io library/alpine",
    },
    // 1. a path before /v2/
    {
      name: "the path before /v2/ is a key",
      repository: "prometheus/prometheus",
      hints: { prefix: "quay.io" },
      want: "quay.io prometheus/prometheus",
    },
    {
      name: "the path before /v2/ is an alias",
      repository: "alpine",
      hints: { prefix: "hub" },
      want: "docker.io library/alpine",
    },
    {
      name: "the path before /v2/ may have a port",
      repository: "team/app",
      hints: { prefix: "registry.corp:5000" },
      want: "registry.corp:5000 team/app",
    },
    {
      name: "the path before /v2/ takes precedence, and no other hint is applied",
      repository: "docker.io/alpine",
      hints: { prefix: "quay.io", ns: "hub", host: "hub.mirror.internal" },
      want: "quay.io docker.io/alpine",
    },
    {
      name: "the same key before and after /v2/ is stripped once",
      repository: "quay.io/a",
      hints: { prefix: "quay.io" },
      want: "quay.io quay.io/a",
    },
    {
      name: "an unknown path before /v2/ is not found, whatever the other hints",
      repository: "library/alpine",
      hints: { prefix: "evil.example", ns: "docker.io" },
      want: "NAME_UNKNOWN",
    },
    {
      name: "a path of two components before /v2/ is not found",
      repository: "a",
      hints: { prefix: "quay.io/team" },
      want: "NAME_UNKNOWN",
    },
    // 2. the first component
    {
      name: "the first component is a key",
      repository: "quay.io/prometheus/prometheus",
      want: "quay.io prometheus/prometheus",
    },
    {
      name: "the first component is an alias",
      repository: "corp/app",
      want: "registry.corp:5000 app",
    },
    {
      name: "library/ is added after the first component is stripped",
      repository: "docker.io/alpine",
      want: "docker.io library/alpine",
    },
    {
      name: "an alias of Docker Hub leads to the same repository",
      repository: "index.docker.io/library/alpine",
      want: "docker.io library/alpine",
    },
    {
      name: "the first component takes precedence over ns, which the answer omits",
      repository: "docker.io/library/alpine",
      hints: { ns: "docker.io" },
      want: "docker.io library/alpine",
    },
    {
      name: "an unknown ns is ignored if the first component is an upstream",
      repository: "quay.io/a/b",
      hints: { ns: "evil.example" },
      want: "quay.io a/b",
    },
    {
      name: "the first component is stripped once",
      repository: "quay.io/quay.io/a",
      want: "quay.io quay.io/a",
    },
    {
      name: "a key in the middle is a part of the name",
      repository: "team/quay.io/a",
      want: "docker.io team/quay.io/a",
    },
    {
      name: "a key alone leaves no name",
      repository: "quay.io",
      want: "NAME_INVALID",
    },
    {
      name: "a key alone leaves no name for library/",
      repository: "docker.io",
      want: "NAME_INVALID",
    },
    // A first component that looks like a registry
    ...[
      "quay.io.evil/a",
      "other.corp/team/app",
      "other.corp:5000/team/app",
      "registry.corp:5001/team/app",
      "registry.corp/team/app",
      "localhost/app",
      "localhost:5000/app",
      "[::1]:5000/app",
      "Other.Corp:5000/app",
      "1.2/app",
    ].map((repository) => ({
      name: `${repository} names a registry that is neither mirrored nor hosted`,
      repository,
      want: "NAME_UNKNOWN",
    })),
    {
      name: "a configured key with a port is not a legal component",
      repository: "registry.corp:5000/app",
      want: "NAME_INVALID",
    },
    {
      name: "a first component with a port breaks the grammar if ns decides",
      repository: "other.corp:5000/app",
      hints: { ns: "quay.io" },
      want: "NAME_INVALID",
    },
    {
      name: "a first component that looks like a registry is a part of the name if ns decides",
      repository: "other.corp/app",
      hints: { ns: "quay.io" },
      want: "quay.io other.corp/app quay.io",
    },
    {
      name: "a first component that looks like a registry is a part of the name if Host decides",
      repository: "other.corp/app",
      hints: { host: "quay.mirror.internal:5000" },
      want: "quay.io other.corp/app",
    },
    {
      name: "a first component that looks like a registry is a part of the name if the path before /v2/ decides",
      repository: "other.corp/app",
      hints: { prefix: "quay.io" },
      want: "quay.io other.corp/app",
    },
    {
      name: "a repository of one component is never a registry",
      repository: "node.js",
      want: "docker.io library/node.js",
    },
    {
      name: "localhost in another place is a part of the name",
      repository: "team/localhost",
      want: "docker.io team/localhost",
    },
    // 3. ns
    {
      name: "ns is a key",
      repository: "prometheus/prometheus",
      hints: { ns: "quay.io" },
      want: "quay.io prometheus/prometheus quay.io",
    },
    {
      name: "ns is an alias, and the answer repeats it as sent",
      repository: "library/alpine",
      hints: { ns: "index.docker.io" },
      want: "docker.io library/alpine index.docker.io",
    },
    {
      name: "ns has a port",
      repository: "a/b",
      hints: { ns: "registry.corp:5000" },
      want: "registry.corp:5000 a/b registry.corp:5000",
    },
    {
      name: "ns takes precedence over Host",
      repository: "a/b",
      hints: { ns: "quay.io", host: "hub.mirror.internal" },
      want: "quay.io a/b quay.io",
    },
    {
      name: "ns in another case and with the root's dot is the same host",
      repository: "a/b",
      hints: { ns: "Quay.IO." },
      want: "quay.io a/b Quay.IO.",
    },
    {
      name: "the root's dot may precede a port",
      repository: "a/b",
      hints: { ns: "registry.corp.:5000" },
      want: "registry.corp:5000 a/b registry.corp.:5000",
    },
    ...[
      "evil.example",
      "localhost",
      "127.0.0.1:22",
      "169.254.169.254",
      "[::1]:5000",
      "quay.io:443",
      "quay.io..",
      ".quay.io",
      "quay.io/",
      "https://quay.io",
      "user@quay.io",
      "quay.io\r\nX-Evil: 1",
      "quay.io\0",
      "doc\u212aer.io",
      "xn--quay-io",
      "",
      ".",
      ":",
      "__proto__",
      "constructor",
      "toString",
      "hub.mirror.internal",
      "a".repeat(65_536),
    ].map((ns) => ({
      name: `ns ${JSON.stringify(ns).slice(0, 30)} is not an upstream's`,
      repository: "library/alpine",
      hints: { ns },
      want: "NAME_UNKNOWN",
    })),
    // 4. Host
    {
      name: "Host without a port",
      repository: "alpine",
      hints: { host: "hub.mirror.internal" },
      want: "docker.io library/alpine",
    },
    {
      name: "Host with any port, for a hostname without one",
      repository: "a/b",
      hints: { host: "HUB.Mirror.Internal.:8443" },
      want: "docker.io a/b",
    },
    {
      name: "Host that is an address",
      repository: "a/b",
      hints: { host: "[fd00::1]:5000" },
      want: "docker.io a/b",
    },
    {
      name: "Host with the port of the hostname",
      repository: "a/b",
      hints: { host: "quay.mirror.internal:5000" },
      want: "quay.io a/b",
    },
    {
      name: "Host with another port than the hostname",
      repository: "a/b",
      hints: { host: "quay.mirror.internal:5001" },
      want: "docker.io a/b",
    },
    {
      name: "Host with the name of an upstream is not one of its hostnames",
      repository: "a/b",
      hints: { host: "quay.io" },
      want: "docker.io a/b",
    },
    {
      name: "Host with invalid characters is not an upstream's",
      repository: "a/b",
      hints: { host: "hub.mirror.internal\r\n, quay.io" },
      want: "docker.io a/b",
    },
    {
      name: "the first component takes precedence over Host",
      repository: "quay.io/a",
      hints: { host: "hub.mirror.internal" },
      want: "quay.io a",
    },
    // Names
    ...["constructor", "prototype/x", "tostring/x"].map((repository) => ({
      name: `a repository called ${repository}`,
      repository: `a/${repository}`,
      want: `docker.io a/${repository}`,
    })),
    {
      name: "a name of the maximum length after a key",
      repository: `quay.io/${"a".repeat(255)}`,
      want: `quay.io ${"a".repeat(255)}`,
    },
    {
      name: "a name that is too long",
      repository: "a/".repeat(127) + "aa",
      want: "NAME_INVALID",
    },
    {
      name: "a name that is too long with library/",
      repository: "a".repeat(248),
      want: "NAME_INVALID",
    },
    {
      name: "a name that breaks the grammar",
      repository: "quay.io/../docker.io",
      want: "NAME_INVALID",
    },
  ];
  for (const { name, repository, hints, want } of table) {
    void it(name, () => {
      assert.equal(routeText(repository, hints), want);
    });
  }

  void it("finds no upstream without a default and a hint", () => {
    const bare = createRoutes([quay]);
    assert.equal(routeText("library/alpine", {}, bare), "NAME_UNKNOWN");
    assert.equal(routeText("quay.io/a", {}, bare), "quay.io a");
    const empty = createRoutes([]);
    assert.equal(routeText("library/alpine", {}, empty), "NAME_UNKNOWN");
  });

  void it("prefers a key to an alias in any order", () => {
    const thief = upstream("thief.example", {
      aliases: ["quay.io", "__proto__"],
      hostnames: ["hub.mirror.internal"],
    });
    const first = createRoutes([thief, hub, quay]);
    assert.equal(routeText("quay.io/a", {}, first), "quay.io a");
  });

  void it("repeats the client's text only if it is a valid host", () => {
    for (const { repository, hints } of table) {
      const routed = routes.routeRepository(
        { ...noHints, ...hints },
        repository,
      );
      if (!routed.ok)
        assert.match(routed.detail, /^[a-zA-Z0-9/ ,._:[\]-]{1,350}$/);
    }
    const routed = routes.routeRepository(noHints, "other.corp:5000/app");
    assert.ok(!routed.ok);
    assert.equal(
      routed.detail,
      "other.corp:5000 is not among the upstreams or hosted registries",
    );
    assert.deepEqual(routed.unknown, {
      by: "component",
      name: "other.corp:5000",
    });
  });

  const registries: readonly [
    name: string,
    hints: Partial<RouteHints>,
    want: unknown,
  ][] = [
    [
      "no hint is all of them",
      {},
      { registry: undefined, namespace: undefined },
    ],
    [
      "a prefix",
      { prefix: "hub" },
      { registry: { kind: "mirrored", upstream: hub }, namespace: undefined },
    ],
    ["an unknown prefix", { prefix: "evil" }, "NAME_UNKNOWN"],
    [
      "an ns",
      { ns: "quay.io" },
      { registry: { kind: "mirrored", upstream: quay }, namespace: "quay.io" },
    ],
    ["an unknown ns", { ns: "evil" }, "NAME_UNKNOWN"],
    [
      "a prefix before an ns",
      { prefix: "hub", ns: "evil" },
      { registry: { kind: "mirrored", upstream: hub }, namespace: undefined },
    ],
    [
      "a Host",
      { host: "hub.mirror.internal:1" },
      { registry: { kind: "mirrored", upstream: hub }, namespace: undefined },
    ],
    [
      "an unknown Host",
      { host: "evil" },
      { registry: undefined, namespace: undefined },
    ],
  ];
  for (const [name, hints, want] of registries) {
    void it(`routes a request without a repository by ${name}`, () => {
      const routed = routes.routeRegistry({ ...noHints, ...hints });
      assert.deepEqual(
        routed.ok ? { ...routed } : routed.code,
        typeof want === "string" ? want : { ok: true, ...(want as object) },
      );
    });
  }
});

void describe("routes of hosted registries", () => {
  const local = hostedConfig({ hostnames: ["registry.corp"] });
  const team = hostedConfig({ name: "team", hostnames: ["team.corp:5000"] });
  const others = [hub, quay, corp];
  const beside = createRoutes(others, [], [local, team]);
  const notDefault = others.map((one) => ({ ...one, isDefault: false }));
  const first = { ...local, isDefault: true };
  const byDefault = createRoutes(notDefault, [], [first, team]);
  const star = upstream("*", { endpoints: [] });
  const templated = createRoutes(notDefault, [star], [first, team]);

  const table: readonly [
    name: string,
    from: typeof routes,
    repository: string,
    hints: Partial<RouteHints>,
    want: string,
  ][] = [
    ["a first component", beside, "local/a/b", {}, "local a/b"],
    ["a first component of two", beside, "team/a", {}, "team a"],
    ["a prefix", beside, "a/b", { prefix: "team" }, "team a/b"],
    [
      "a prefix before a first component",
      beside,
      "local/a",
      { prefix: "team" },
      "team local/a",
    ],
    ["an ns", beside, "a/b", { ns: "Local." }, "local a/b Local."],
    ["a Host", beside, "a", { host: "Registry.Corp:443" }, "local a"],
    ["a Host with a port", beside, "a", { host: "team.corp:5000" }, "team a"],
    [
      "a Host with another port is not a hint",
      beside,
      "a",
      { host: "team.corp:5001" },
      "docker.io library/a",
    ],
    [
      "a first component before a Host",
      beside,
      "team/a",
      { host: "registry.corp" },
      "team a",
    ],
    [
      "an upstream's name before a hosted Host",
      beside,
      "quay.io/a",
      { host: "registry.corp" },
      "quay.io a",
    ],
    [
      "a dotted component is a part of the name if a hosted Host decides",
      beside,
      "other.corp/a",
      { host: "registry.corp" },
      "local other.corp/a",
    ],
    // A hosted name beside ns
    [
      "a first component with an ns of the same registry",
      beside,
      "local/a",
      { ns: "local" },
      "local a",
    ],
    [
      "a first component with an upstream's ns is a part of the name",
      beside,
      "local/a",
      { ns: "docker.io" },
      "docker.io local/a docker.io",
    ],
    [
      "a first component with another hosted ns is a part of the name",
      beside,
      "local/a",
      { ns: "team" },
      "team local/a team",
    ],
    [
      "a first component with an unknown ns is not found",
      beside,
      "local/a",
      { ns: "evil.example" },
      "NAME_UNKNOWN",
    ],
    [
      "an upstream's first component with a hosted ns",
      beside,
      "quay.io/a",
      { ns: "local" },
      "quay.io a",
    ],
    // Never through to an upstream
    ["a hosted name alone", beside, "local", {}, "NAME_INVALID"],
    ["a hosted name twice", beside, "local/local/a", {}, "local local/a"],
    ["no library/ at a hosted registry", beside, "local/a", {}, "local a"],
    [
      "another name goes to the upstream",
      beside,
      "a",
      {},
      "docker.io library/a",
    ],
    ["a dotted name is unknown", beside, "other.corp/a", {}, "NAME_UNKNOWN"],
    // A hosted default
    ["a name without a hint", byDefault, "nginx", {}, "local nginx"],
    ["a name of two components", byDefault, "a/b", {}, "local a/b"],
    [
      "library/ of a dockerd",
      byDefault,
      "library/nginx",
      {},
      "local library/nginx",
    ],
    ["the default by its name", byDefault, "local/a", {}, "local a"],
    ["another hosted registry", byDefault, "team/a", {}, "team a"],
    [
      "an upstream by its name",
      byDefault,
      "docker.io/a",
      {},
      "docker.io library/a",
    ],
    ["an upstream by its alias", byDefault, "hub/a", {}, "docker.io library/a"],
    [
      "an upstream by ns",
      byDefault,
      "a/b",
      { ns: "quay.io" },
      "quay.io a/b quay.io",
    ],
    [
      "an upstream by Host",
      byDefault,
      "library/nginx",
      { host: "hub.mirror.internal" },
      "docker.io library/nginx",
    ],
    [
      "localhost is a part of the name",
      byDefault,
      "localhost/a",
      {},
      "local localhost/a",
    ],
    [
      "a dotted component is a part of the name",
      byDefault,
      "node.js/a",
      {},
      "local node.js/a",
    ],
    [
      "a dotted name of one component",
      byDefault,
      "node.js",
      {},
      "local node.js",
    ],
    [
      "a port is not a part of a name",
      byDefault,
      "a.corp:5000/a",
      {},
      "NAME_INVALID",
    ],
    [
      "an unknown ns is not hosted",
      byDefault,
      "a",
      { ns: "evil.example" },
      "NAME_UNKNOWN",
    ],
    [
      "an unknown prefix is not hosted",
      byDefault,
      "a",
      { prefix: "evil" },
      "NAME_UNKNOWN",
    ],
    // Templates
    [
      "a name without a dot beside a template",
      templated,
      "a/b",
      {},
      "local a/b",
    ],
    [
      "localhost beside a template",
      templated,
      "localhost/a",
      {},
      "local localhost/a",
    ],
    [
      "a dotted name of one component beside a template",
      templated,
      "node.js",
      {},
      "local node.js",
    ],
    [
      "a dotted component that matches a template",
      templated,
      "ghcr.io/a",
      {},
      "ghcr.io a",
    ],
    [
      "an ns that matches a template",
      templated,
      "local/a",
      { ns: "ghcr.io" },
      "ghcr.io local/a ghcr.io",
    ],
    [
      "a hosted name is no template's",
      templated,
      "x",
      { ns: "team" },
      "team x team",
    ],
    [
      "a hosted prefix is no template's",
      templated,
      "x",
      { prefix: "team" },
      "team x",
    ],
    [
      "a Host before a template",
      templated,
      "ghcr.io/a",
      { host: "team.corp:5000" },
      "team ghcr.io/a",
    ],
  ];
  for (const [name, from, repository, hints, want] of table) {
    void it(`${name}: ${repository} ${JSON.stringify(hints)}`, () => {
      assert.equal(routeText(repository, hints, from), want);
    });
  }

  void it("list a default without its name, and the others by it", () => {
    assert.equal(beside.listedName("local"), "local");
    assert.equal(byDefault.listedName("local"), "");
    assert.equal(byDefault.listedName("team"), "team");
    assert.equal(byDefault.listedName("docker.io"), "docker.io");
    assert.equal(byDefault.listedName("gone"), undefined);
    assert.equal(beside.findUpstream("local"), undefined);
    assert.equal(beside.findHosted("docker.io"), undefined);
    assert.equal(beside.findHosted("team"), team);
    assert.deepEqual(
      [...beside.hostnames],
      [...hub.hostnames, ...quay.hostnames, "registry.corp", "team.corp:5000"],
    );
  });

  void it("are those of a ping and a catalog", () => {
    for (const [hints, want] of [
      [{}, undefined],
      [{ prefix: "local" }, "local"],
      [{ ns: "team" }, "team"],
      [{ host: "registry.corp" }, "local"],
    ] as const) {
      const routed = byDefault.routeRegistry({ ...noHints, ...hints });
      assert.ok(routed.ok);
      assert.equal(routed.registry && registryName(routed.registry), want);
    }
  });
});

/** Upper-cases some letters of an ASCII text. */
function inMixedCase(text: string, flips: readonly boolean[]): string {
  return text.replaceAll(/./g, (char, at: number) =>
    flips[at] === true ? char.toUpperCase() : char,
  );
}

function tagsTarget(
  repository: string,
  prefix: string | undefined,
  ns: string | undefined,
): string {
  return formatDistributionPath({
    prefix,
    ns,
    target: { kind: "tags", repository, n: undefined, last: undefined },
  });
}

interface Spelling {
  readonly way: "prefix" | "component" | "ns" | "both" | "host" | "none";
  readonly pick: number;
  readonly flips: readonly boolean[];
  readonly hasDot: boolean;
  readonly isShort: boolean;
}

/** The request target and the Host of one way to request a repository's tags from an upstream. */
function spell(
  target: UpstreamConfig,
  wanted: string,
  { way, pick, flips, hasDot, isShort }: Spelling,
): { rawTarget: string; host: string | undefined } {
  const names = [target.name, ...target.aliases];
  const name = names[pick % names.length] ?? target.name;
  const dressed = inMixedCase(name, flips) + (hasDot ? "." : "");
  const hasShort = target.libraryPrefix && /^library\/[^/]+$/.test(wanted);
  const short = isShort && hasShort ? wanted.slice("library/".length) : wanted;
  const isBehind = way === "component" || way === "both";
  const ns = { prefix: "evil.example", ns: dressed, both: dressed }[
    way as string
  ];
  return {
    rawTarget: tagsTarget(
      isBehind ? `${name}/${short}` : short,
      way === "prefix" ? dressed : undefined,
      ns,
    ),
    host:
      way === "host"
        ? target.hostnames[pick % target.hostnames.length]
        : "mirror.internal",
  };
}

function keyOf(rawTarget: string, host: string | undefined): string {
  const path = parseDistributionPath(rawTarget);
  if (!path.ok) return path.code;
  assert(path.target.kind === "tags");
  const { repository } = path.target;
  const { prefix, ns } = path;
  const routed = routes.routeRepository({ prefix, ns, host }, repository);
  return routed.ok
    ? `${registryName(routed)}/${routed.repository}`
    : routed.code;
}

void describe("one canonical key", () => {
  const names = upstreams.flatMap(({ name, aliases }) => [name, ...aliases]);
  const component = fc.stringMatching(/^[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?$/);
  const repository = fc
    .array(component, { minLength: 1, maxLength: 3 })
    .filter(([first = ""]) => !names.includes(first))
    .map((components) => components.join("/"));
  const spelling: fc.Arbitrary<Spelling> = fc.record({
    way: fc.constantFrom("prefix", "component", "ns", "both", "host", "none"),
    pick: fc.nat(),
    flips: fc.array(fc.boolean(), { maxLength: 20 }),
    hasDot: fc.boolean(),
    isShort: fc.boolean(),
  });

  void it("is the result of every spelling, unless that is an error", () => {
    let keys = 0;
    const check = (
      target: UpstreamConfig,
      name: string,
      spelt: Spelling,
    ): void => {
      const canonical =
        target.libraryPrefix && !name.includes("/") ? `library/${name}` : name;
      const { rawTarget, host } = spell(target, canonical, spelt);
      const key = keyOf(rawTarget, host);
      const isHintless =
        spelt.way === "none" ||
        (spelt.way === "host" && target.hostnames.length === 0);
      if (isHintless && /^[^/]*[.:][^/]*\//.test(canonical)) {
        // Without a hint the name counts as one of another registry.
        assert.equal(key, "NAME_UNKNOWN", rawTarget);
      } else if (isHintless && target !== hub) {
        // Without a hint it names another image, at the default upstream.
        assert(key.startsWith("docker.io/"));
      } else if (key === "NAME_INVALID") {
        // A key with a port is not a legal component.
        assert(["component", "both"].includes(spelt.way), rawTarget);
        assert(rawTarget.includes("registry.corp:5000/"));
      } else {
        assert.equal(key, `${target.name}/${canonical}`, rawTarget);
        keys++;
      }
    };
    const target = fc.constantFrom(...upstreams);
    fc.assert(fc.property(target, repository, spelling, check), {
      numRuns: 3000,
    });
    assert(keys > 1500);
  });
});
