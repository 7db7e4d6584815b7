import { type UpstreamConfig, Secret } from "../../src/config/config.ts";
import type { AfterTest } from "./after-test.ts";
import { createCertificateAuthority } from "./certificate-authority.ts";
import { ForwardProxy } from "./forward-proxy.ts";
import { startMirror, type TestMirror } from "./mirror-harness.ts";
import {
  type ListenerName,
  ScriptedUpstream,
  type ScriptedUpstreamOptions,
} from "./scripted-upstream.ts";
import { upstreamConfig } from "./upstream-harness.ts";

export interface RegistryScene {
  readonly upstream: ScriptedUpstream;
  /** Another registry that the first one redirects to, where `elsewhere` names it. */
  readonly elsewhere: ScriptedUpstream;
  readonly proxy: ForwardProxy;
  readonly mirror: TestMirror;
}

export interface RegistrySceneOptions {
  /** The upstream's key, and its host where `hosts` has none. */
  readonly name: string;
  /** Hosts of the listeners, as the registry's own users know them. */
  readonly hosts: Partial<Readonly<Record<ListenerName, string>>>;
  readonly elsewhere?: string;
  readonly script?: ScriptedUpstreamOptions;
  readonly config?: Partial<UpstreamConfig>;
}

/**
 * A mirror of a scripted registry under the registry's real names: TLS with certificates for them,
 * and a forward proxy in the place of the Internet. So realms, redirects and links are judged by the
 * hosts that they really have.
 */
export async function startRegistryScene(
  test: AfterTest,
  options: RegistrySceneOptions,
): Promise<RegistryScene> {
  const { name, elsewhere: other = "elsewhere.example", config } = options;
  const hosts = { registry: name, ...options.hosts };
  const authority = createCertificateAuthority();
  const tls = authority.issue({
    hosts: [...Object.values(hosts), other].map((host) =>
      host.replace(/:\d+$/, ""),
    ),
  });
  const upstream = await ScriptedUpstream.start(test, {
    ...options.script,
    tls,
    names: Object.fromEntries(
      Object.entries(hosts).map(([listener, host]) => [
        listener,
        `https://${host}`,
      ]),
    ),
  });
  const elsewhere = await ScriptedUpstream.start(test, { tls });
  const places = [
    [hosts.registry, upstream.registry],
    [hosts.token, upstream.tokenListener],
    [hosts.cdn, upstream.cdn],
    [other, elsewhere.registry],
  ] as const;
  const proxy = await ForwardProxy.start(
    test,
    Object.fromEntries(
      places.flatMap(([host, listener]) =>
        host === undefined || listener === undefined
          ? []
          : [[/:\d+$/.test(host) ? host : `${host}:443`, listener.port]],
      ),
    ),
  );
  const url = new Secret(proxy.url);
  const mirror = await startMirror(test, [
    {
      ...upstreamConfig([`https://${hosts.registry}`], {
        name,
        proxy: { source: "upstream", https: url, http: url, noProxy: [] },
        tls: { ca: authority.cert, insecureSkipVerify: false },
      }),
      ...config,
    },
  ]);
  return { upstream, elsewhere, proxy, mirror };
}
