import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { UpstreamConfig } from "../../../src/config/config.ts";
import { createRoutes, type RouteHints } from "../../../src/routing/routes.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

function upstream(
  name: string,
  more: Partial<UpstreamConfig> = {},
): UpstreamConfig {
  const endpoints = name.includes("*") ? [] : [`https://${name}`];
  return { ...UPSTREAM_DEFAULTS, name, endpoints, ...more };
}

const hub = upstream("docker.io", { isDefault: true, libraryPrefix: true });
const quay = upstream("quay.io", { hostnames: ["quay.mirror"] });
const corp = upstream("registry.corp:5000", { aliases: ["corp"] });
const routes = createRoutes(
  [hub, quay, corp],
  ["*", "*.corp", "*.build.corp", "*.corp:8443", "reg*.example"].map((key) =>
    upstream(key),
  ),
);

const noHints: RouteHints = {
  prefix: undefined,
  ns: undefined,
  host: undefined,
};

/** `template -> name repository`, or the code of a refusal. */
function routeText(
  repository: string,
  hints: Partial<RouteHints> = {},
  from = routes,
): string {
  const routed = from.routeRepository({ ...noHints, ...hints }, repository);
  if (!routed.ok) return routed.code;
  assert(routed.kind === "mirrored");
  const { template, name } = routed.upstream;
  return `${template ?? "key"} -> ${name} ${routed.repository}`;
}

void describe("a template", () => {
  const byNs: readonly (readonly [ns: string, want: string])[] = [
    ["quay.io", "key -> quay.io a/b"],
    ["corp", "key -> registry.corp:5000 a/b"],
    ["registry.corp:5000", "key -> registry.corp:5000 a/b"],
    ["gcr.io", "* -> gcr.io a/b"],
    ["GCR.io.", "* -> gcr.io a/b"],
    ["gcr.io:8443", "* -> gcr.io:8443 a/b"],
    ["gcr.io:443", "* -> gcr.io a/b"],
    ["gcr.io:0443", "NAME_UNKNOWN"],
    ["quay.io:443", "NAME_UNKNOWN"],
    ["quay.io.:443", "NAME_UNKNOWN"],
    ["harbor", "* -> harbor a/b"],
    ["127.0.0.1:5000", "* -> 127.0.0.1:5000 a/b"],
    ["[::1]:5000", "* -> [::1]:5000 a/b"],
    ["registry.corp", "*.corp -> registry.corp a/b"],
    ["registry.corp:5001", "*.corp -> registry.corp:5001 a/b"],
    ["a.b.corp", "*.corp -> a.b.corp a/b"],
    ["a.build.corp", "*.build.corp -> a.build.corp a/b"],
    ["registry.corp:8443", "*.corp:8443 -> registry.corp:8443 a/b"],
    ["reg1.example", "reg*.example -> reg1.example a/b"],
    ["0x7f.1", "NAME_UNKNOWN"],
    ["2130706433", "NAME_UNKNOWN"],
    ["127.1", "NAME_UNKNOWN"],
    ["a..b", "NAME_UNKNOWN"],
    [".", "NAME_UNKNOWN"],
    ["-a.example", "NAME_UNKNOWN"],
    ["a.example:99999", "NAME_UNKNOWN"],
    ["a.example/x", "NAME_UNKNOWN"],
    ["user@a.example", "NAME_UNKNOWN"],
    ["*", "NAME_UNKNOWN"],
    ["", "NAME_UNKNOWN"],
  ];
  for (const [ns, want] of byNs) {
    void it(`routes ns=${ns} by the most specific template: ${want}`, () => {
      assert.equal(routeText("a/b", { ns }), want);
      const byPath = routeText("a/b", { prefix: ns });
      assert.equal(byPath, want);
    });
  }

  const byName: readonly (readonly [
    name: string,
    hints: Partial<RouteHints>,
    want: string,
  ])[] = [
    ["gcr.io/a/b", {}, "* -> gcr.io a/b"],
    ["quay.io/a/b", {}, "key -> quay.io a/b"],
    ["a/b", {}, "key -> docker.io a/b"],
    ["gcr.io", {}, "key -> docker.io library/gcr.io"],
    // Only ns and a path can name a port.
    ["gcr.io:5000/a/b", {}, "NAME_UNKNOWN"],
    ["localhost/a/b", {}, "NAME_UNKNOWN"],
    // If ns or Host decides, the first component is a part of the name.
    ["my.team/a", { ns: "quay.io" }, "key -> quay.io my.team/a"],
    ["my.team/a", { host: "quay.mirror" }, "key -> quay.io my.team/a"],
    ["my.team/a", { ns: "gcr.io" }, "* -> gcr.io my.team/a"],
    // k3s and BuildKit name a registry twice.
    ["gcr.io/a/b", { ns: "gcr.io" }, "* -> gcr.io a/b"],
    ["gcr.io/a/b", { ns: "GCR.io" }, "* -> gcr.io a/b"],
  ];
  for (const [name, hints, want] of byName) {
    void it(`routes ${name} with ${JSON.stringify(hints)} to ${want}`, () => {
      assert.equal(routeText(name, hints), want);
    });
  }

  void it("creates one upstream per name, with the template's settings and the name's endpoint", () => {
    const deny = ["secret/**"];
    const from = createRoutes([], [upstream("*", { deny })]);
    const one = from.findUpstream("gcr.io");
    assert.equal(from.findUpstream("gcr.io"), one);
    assert.deepEqual(one?.endpoints, ["https://gcr.io"]);
    assert.deepEqual(one?.deny, deny);
    assert.equal(routeText("gcr.io/a", {}, from), "* -> gcr.io a");
    assert.equal(routeText("a/b", {}, from), "NAME_UNKNOWN");
  });

  void it("recognizes Docker Hub by its names, unless it has a key", () => {
    const from = createRoutes([quay], [upstream("*")]);
    for (const ns of ["docker.io", "index.docker.io", "registry-1.docker.io"]) {
      const want = "* -> docker.io library/alpine";
      assert.equal(routeText("alpine", { ns }, from), want);
    }
    const { endpoints } = from.findUpstream("docker.io") ?? {};
    assert.deepEqual(endpoints, ["https://registry-1.docker.io"]);
    assert.equal(
      routeText("alpine", { ns: "index.docker.io" }),
      "* -> index.docker.io alpine",
    );
  });

  void it("lists its upstreams by names that can be pulled", () => {
    assert.equal(routes.listedName("gcr.io"), "gcr.io");
    assert.equal(routes.listedName("gcr.io:5000"), undefined);
  });
});
