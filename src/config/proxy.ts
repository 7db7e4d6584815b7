import { type ProxyConfig, Secret } from "./config.ts";
import { parseProxy } from "./schema/forms.ts";

/**
 * Chooses the proxies of an upstream: its own for all requests, otherwise those of the environment. A
 * variable in lower case takes precedence, as in curl; an invalid proxy URL counts as absent, since
 * the variable may be meant for other programs (SOCKS).
 *
 * @param written `proxy` of the upstream
 */
export function chooseProxy(
  written: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): ProxyConfig {
  if (written === "none") {
    return { source: "none", https: undefined, http: undefined, noProxy: [] };
  }
  if (written) {
    const url = secret(written);
    return { source: "upstream", https: url, http: url, noProxy: [] };
  }
  const variable = (name: string): string =>
    env[name.toLowerCase()] || env[name] || "";
  const https = secret(variable("HTTPS_PROXY"));
  const http = secret(variable("HTTP_PROXY"));
  const noProxy = variable("NO_PROXY")
    .split(/[,\s]+/)
    .filter((entry) => entry !== "")
    .map((entry) => entry.toLowerCase());
  return { source: "environment", https, http, noProxy };
}

function secret(text: string): Secret | undefined {
  const url = text === "" ? undefined : parseProxy(text);
  return url === undefined ? undefined : new Secret(url);
}
