import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:https";
import type { TLSSocket } from "node:tls";
import { describe, it } from "node:test";
import { type ProxyConfig, Secret } from "../../../src/config/config.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import {
  type CertificateAuthority,
  createCertificateAuthority,
} from "../../support/certificate-authority.ts";
import { ForwardProxy } from "../../support/forward-proxy.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "proxies", layers: [5_000] });

function through(url: string, noProxy: readonly string[] = []): ProxyConfig {
  const secret = new Secret(url);
  return { source: "environment", https: secret, http: secret, noProxy };
}

/** The proxy resolves names. */
const NOBODY_RESOLVES = (hostname: string): Promise<never> =>
  Promise.reject(new Error(`${hostname} was looked up`));

void describe("a forward proxy", () => {
  void it("is used for an http endpoint and resolves its name", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.content.addImage(ALPINE, IMAGE, "1");
    const proxy = await ForwardProxy.start(t, {
      "registry.example:80": upstream.registry.port,
    });
    const { client } = startUpstreamClient(t, ["http://registry.example"], {
      proxy: through(proxy.url),
      resolveName: NOBODY_RESOLVES,
    });
    await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(proxy.requests, [
      {
        method: "GET",
        host: "registry.example:80",
        authorization: undefined,
      },
    ]);
    assert.equal(upstream.requests()[0]?.headers["host"], "registry.example");
  });

  void it("is the only server that gets its password, through a tunnel for an https endpoint", async (t) => {
    const authority = createCertificateAuthority();
    const upstream = await ScriptedUpstream.start(t, {
      tls: authority.issue({ hosts: ["registry.example"] }),
    });
    upstream.content.addImage(ALPINE, IMAGE, "1");
    const proxy = await ForwardProxy.start(t, {
      "registry.example:443": upstream.registry.port,
    });
    const { client, observer } = startUpstreamClient(
      t,
      ["https://registry.example"],
      {
        proxy: through(proxy.url.replace("//", "//acme:canary@")),
        tls: { ca: authority.cert, insecureSkipVerify: false },
        resolveName: NOBODY_RESOLVES,
      },
    );
    await client.getManifest(ALPINE, TAG, SIGNAL);
    const authorization = `Basic ${Buffer.from("acme:canary").toString("base64")}`;
    assert.deepEqual(proxy.requests, [
      { method: "CONNECT", host: "registry.example:443", authorization },
    ]);
    const sent = JSON.stringify(upstream.requests());
    assert.doesNotMatch(sent, /proxy-authorization|canary/);

    proxy.status = 407;
    upstream.registry.dropConnections();
    const error = await upstreamErrorOf(
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.ok(["unreachable", "bad-response"].includes(error.kind));
    assert.doesNotMatch(
      error.message + JSON.stringify(observer.faults),
      /canary/,
    );
  });

  void it("is bypassed for hosts in NO_PROXY", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.content.addImage(ALPINE, IMAGE, "1");
    const proxy = await ForwardProxy.start(t, {});
    const { client } = startUpstreamClient(t, [upstream.origin], {
      proxy: through(proxy.url, ["127.0.0.0/8"]),
    });
    await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(proxy.requests, []);
  });

  void it("that is unreachable makes the endpoint rest", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const { port } = upstream.registry;
    await upstream.stop();
    const { client } = startUpstreamClient(t, ["http://registry.example"], {
      proxy: through(`http://127.0.0.1:${port}/`),
    });
    const ask = () => upstreamErrorOf(client.getManifest(ALPINE, TAG, SIGNAL));
    assert.equal((await ask()).kind, "unreachable");
    assert.equal((await ask()).kind, "breaker-open");
  });
});

interface TlsListener {
  readonly origin: string;
  /** The subject of each request's client certificate; undefined without one. */
  readonly seen: (string | undefined)[];
}

async function startTlsListener(
  t: AfterTest,
  authority: CertificateAuthority,
  answer: { readonly location?: string; readonly body?: Buffer },
): Promise<TlsListener> {
  const seen: (string | undefined)[] = [];
  const server = createServer(
    {
      ...authority.issue(),
      ca: authority.cert,
      requestCert: true,
      rejectUnauthorized: false,
    },
    (request, response) => {
      const { subject } = (request.socket as TLSSocket).getPeerCertificate();
      const name = (subject as { CN?: string } | undefined)?.CN;
      seen.push(name);
      if (answer.location !== undefined) {
        response.writeHead(307, { location: answer.location }).end();
      } else {
        response
          .writeHead(200, { "content-type": IMAGE.manifest.mediaType })
          .end(answer.body);
      }
    },
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(t, async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) assert.fail();
  return { origin: `https://127.0.0.1:${address.port}`, seen };
}

void describe("a client certificate", () => {
  void it("is sent to the endpoint, but not to redirect targets", async (t) => {
    const authority = createCertificateAuthority();
    const storage = await startTlsListener(t, authority, {
      body: IMAGE.manifest.bytes,
    });
    const registry = await startTlsListener(t, authority, {
      location: `${storage.origin}/x`,
    });
    const { cert, key } = authority.issue({ hosts: ["the-mirror"] });
    const { client } = startUpstreamClient(t, [registry.origin], {
      tls: {
        ca: authority.cert,
        insecureSkipVerify: false,
        clientCertificate: {
          certificate: cert,
          key: new Secret(key),
          certificateFile: "/client.crt",
          keyFile: "/client.key",
        },
      },
    });
    const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(bytes, IMAGE.manifest.bytes);
    assert.deepEqual(registry.seen, ["the-mirror"]);
    assert.deepEqual(storage.seen, [undefined]);
  });
});
