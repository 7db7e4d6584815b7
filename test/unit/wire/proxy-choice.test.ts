import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type ProxyConfig, Secret } from "../../../src/config/config.ts";
import { chooseProxy } from "../../../src/config/proxy.ts";
import { chooseProxyFor } from "../../../src/wire/proxy-choice.ts";

function throughProxy(noProxy: string, url: string): boolean {
  const config = chooseProxy(undefined, {
    HTTPS_PROXY: "http://proxy:3128",
    HTTP_PROXY: "proxy:3128",
    NO_PROXY: noProxy,
  });
  return chooseProxyFor(new URL(url), config) !== undefined;
}

/** NO_PROXY, a URL, whether the proxy is used. */
const CASES: readonly (readonly [string, string, boolean])[] = [
  ["", "https://quay.io/", true],
  ["*", "https://quay.io/", false],
  ["quay.io", "https://quay.io/", false],
  ["QUAY.IO", "https://quay.io/", false],
  ["quay.io", "https://cdn.quay.io/", false],
  ["quay.io", "https://notquay.io/", true],
  [".corp", "https://registry.corp/", false],
  ["*.corp", "https://registry.corp/", false],
  ["*.registry.corp", "https://registry.corp/", true],
  ["a.example, registry.corp ghcr.io", "https://ghcr.io/", false],
  ["registry.corp:5000", "https://registry.corp:5000/", false],
  ["registry.corp:5000", "https://registry.corp/", true],
  ["registry.corp:443", "https://registry.corp/", false],
  ["10.0.0.0/8", "https://10.1.2.3/", false],
  ["10.0.0.0/8", "https://11.1.2.3/", true],
  ["10.0.0.0/8", "https://quay.io/", true],
  ["10.0.0.0/", "https://11.1.2.3/", true],
  ["10.0.0.0/8/8", "https://10.1.2.3/", true],
  ["10.1.2.3", "http://10.1.2.3:5000/", false],
  ["fd00::/8", "https://[fd00::1]/", false],
  ["::1", "https://[::1]:5000/", false],
  ["[::1]:5000", "https://[::1]:5000/", false],
  ["[::1]:5000", "https://[::1]/", true],
];

void describe("chooseProxyFor", () => {
  for (const [noProxy, url, want] of CASES) {
    void it(`${want ? "uses the proxy for" : "connects directly to"} ${url} if NO_PROXY is "${noProxy}"`, () => {
      assert.equal(throughProxy(noProxy, url), want);
    });
  }

  void it("chooses the proxy of the URL's scheme", () => {
    const config: ProxyConfig = {
      source: "environment",
      https: new Secret("http://secure:1/"),
      http: undefined,
      noProxy: [],
    };
    assert.equal(
      chooseProxyFor(new URL("https://a.example/"), config),
      "http://secure:1/",
    );
    assert.equal(
      chooseProxyFor(new URL("http://a.example/"), config),
      undefined,
    );
  });
});

void describe("chooseProxy", () => {
  const env = { https_proxy: "http://low:1", HTTPS_PROXY: "http://high:1" };

  void it("prefers the upstream's own proxy, for every scheme and without exceptions", () => {
    const chosen = chooseProxy("https://u:p@own.corp:3128", {
      ...env,
      NO_PROXY: "*",
    });
    assert.equal(chosen.source, "upstream");
    assert.equal(chosen.https?.reveal(), "https://u:p@own.corp:3128/");
    assert.equal(chosen.http?.reveal(), "https://u:p@own.corp:3128/");
    assert.deepEqual(chosen.noProxy, []);
    assert.doesNotMatch(JSON.stringify(chosen), /u:p/);
  });

  void it("chooses none if the upstream turns proxies off or none is configured", () => {
    for (const [written, variables] of [
      ["none", env],
      ["", {}],
      [undefined, { HTTPS_PROXY: "socks5://x:1" }],
    ] as const) {
      const { https, http } = chooseProxy(written, variables);
      assert.deepEqual([https, http], [undefined, undefined]);
    }
  });

  void it("prefers lower-case environment variables", () => {
    const chosen = chooseProxy(undefined, env);
    assert.equal(chosen.https?.reveal(), "http://low:1/");
    assert.equal(chosen.http, undefined);
  });
});
