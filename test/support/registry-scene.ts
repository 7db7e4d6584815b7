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
  /** Another registry, as a target of redirects; its host is the option `elsewhere`. */
  readonly elsewhere: ScriptedUpstream;
  readonly proxy: ForwardProxy;
  readonly mirror: TestMirror;
}

export interface RegistrySceneOptions {
  /** Key of the upstream; also its host unless `hosts.registry` is given. */
  readonly name: string;
  /** Public host names of the registry's listeners. */
  readonly hosts: Partial<Readonly<Record<ListenerName, string>>>;
  readonly elsewhere?: string;
  readonly script?: ScriptedUpstreamOptions;
  readonly config?: Partial<UpstreamConfig>;
}

/**
 * Starts a mirror of a scripted registry that has the names of a real one: TLS with certificates for
 * them, and a forward proxy that takes the place of the Internet. The mirror therefore checks realms,
 * redirects and links by the hosts that the real registry uses.
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
