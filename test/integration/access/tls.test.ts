import assert from "node:assert/strict";
import { once } from "node:events";
import { rename, rm, symlink, writeFile } from "node:fs/promises";
import { Agent, get, type RequestOptions } from "node:https";
import { connect as connectPlain } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { connect, type SecureVersion, type TLSSocket } from "node:tls";
import type { ServerTlsConfig } from "../../../src/config/config.ts";
import { keepHalfOpen } from "../../../src/http/server/half-open.ts";
import { Listeners } from "../../../src/http/server/listeners.ts";
import { openServerTls } from "../../../src/http/server/server-tls.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import {
  type CertificateAuthority,
  createCertificateAuthority,
  type IssuedCertificate,
} from "../../support/certificate-authority.ts";
import { startMirror } from "../../support/mirror-harness.ts";
import { tempDir } from "../../support/temp-dir.ts";

interface TlsFolder {
  readonly config: ServerTlsConfig;
  readonly folder: string;
  readonly write: (pair: Partial<IssuedCertificate>) => Promise<void>;
}

async function writePair(
  test: AfterTest,
  pair: IssuedCertificate,
  clientCa?: string,
): Promise<TlsFolder> {
  const folder = await tempDir(test, "tls-");
  const config = {
    certificateFile: join(folder, "tls.crt"),
    keyFile: join(folder, "tls.key"),
    clientCaFile: clientCa === undefined ? undefined : join(folder, "ca.crt"),
  };
  const write = async ({ cert, key }: Partial<IssuedCertificate>) => {
    if (cert !== undefined) await writeFile(config.certificateFile, cert);
    if (key !== undefined) {
      await writeFile(config.keyFile, key, { mode: 0o600 });
    }
  };
  await write(pair);
  if (config.clientCaFile !== undefined) {
    await writeFile(config.clientCaFile, clientCa ?? "");
  }
  return { config, folder, write };
}

interface OpenTls {
  readonly port: number;
  readonly log: Record<string, unknown>[];
  /** How many requests were answered. */
  count(): number;
  /** Checks the files for changes, as the mirror does every two seconds. */
  check(): Promise<void>;
}

/** Sends bytes without TLS; @returns the bytes received until the connection is closed */
async function plainExchange(port: number, bytes: string): Promise<string> {
  const socket = connectPlain(port, "127.0.0.1");
  socket.write(bytes, "latin1");
  let text = "";
  socket.on("data", (part) => (text += part.toString("latin1")));
  socket.on("error", () => {});
  await once(socket, "close");
  return text;
}

/** Starts the mirror's own listener with a handler that answers the number of requests. */
async function serve(
  test: AfterTest,
  config: ServerTlsConfig,
): Promise<OpenTls> {
  const log: Record<string, unknown>[] = [];
  const tls = await openServerTls(
    { config, isCertificateRequired: true },
    createLogger(
      { level: "info" },
      { write: (line) => void log.push(JSON.parse(line) as never) },
    ),
  );
  let count = 0;
  const server = tls.createServer({}, (_request, response) => {
    count += 1;
    response.end(String(count));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    tls.close();
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return {
    port: address.port,
    log,
    count: () => count,
    check: () => tls.check(),
  };
}

interface Answered {
  readonly status: number | undefined;
  readonly body: string;
  readonly serial: string;
}

function ask(port: number, options: RequestOptions): Promise<Answered> {
  return new Promise((resolve, reject) => {
    get(
      { host: "127.0.0.1", port, agent: false, path: "/v2/", ...options },
      (response) => {
        let body = "";
        const socket = response.socket as TLSSocket;
        const serial = socket.getPeerCertificate().serialNumber;
        response.on("data", (part) => (body += String(part)));
        response.on("end", () =>
          resolve({ status: response.statusCode, body, serial }),
        );
        response.on("error", reject);
      },
    ).on("error", reject);
  });
}

/** Returns the negotiated protocol, or the code of the refusal. */
async function handshake(
  port: number,
  authority: CertificateAuthority,
  version: SecureVersion,
): Promise<string | null> {
  const socket = connect({
    port,
    host: "127.0.0.1",
    ca: authority.cert,
    minVersion: version,
    maxVersion: version,
    // The versions that an old client still offers.
    ciphers: "DEFAULT:@SECLEVEL=0",
  });
  try {
    await once(socket, "secureConnect");
    return socket.getProtocol();
  } catch {
    return "refused";
  } finally {
    socket.destroy();
  }
}

void describe("TLS of the registry API", () => {
  void it("serves its certificate by TLS 1.2 and above only", async (test) => {
    const authority = createCertificateAuthority();
    const { config } = await writePair(test, authority.issue());
    const mirror = await startMirror(test, [], { tls: config });
    const ca = authority.cert;
    const { status, body } = await ask(mirror.port, { ca });
    assert.deepEqual([status, body], [200, "{}"]);
    await assert.rejects(ask(mirror.port, {}), {
      code: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    });
    assert.deepEqual(
      await Promise.all(
        (["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"] as const).map((version) =>
          handshake(mirror.port, authority, version),
        ),
      ),
      ["refused", "refused", "TLSv1.2", "TLSv1.3"],
    );
  });

  void it("serves it on every listener, including IPv6", async (test) => {
    const authority = createCertificateAuthority();
    const { config } = await writePair(test, authority.issue());
    const log = createLogger({ level: "info" }, { write: () => {} });
    const settings = { config, isCertificateRequired: true };
    const tls = await openServerTls(settings, log);
    const hosts = ["127.0.0.1", "127.0.0.2", "::1"];
    const listeners = new Listeners(
      hosts.map((host) => ({ host, port: 0 })),
      (_request, response) => response.end("here"),
      tls.createServer,
    );
    releaseAfter(test, async () => {
      tls.close();
      await listeners.close(0);
    });
    const addresses = await listeners.listen("listen");
    for (const [index, host] of hosts.entries()) {
      const port = Number(/:(\d+)$/.exec(addresses[index] ?? "")?.[1]);
      const { body } = await ask(port, { host, ca: authority.cert });
      assert.equal(body, "here", host);
    }
  });

  void it("answers a plain HTTP request with a sentence over plain HTTP, and keeps serving", async (test) => {
    const authority = createCertificateAuthority();
    const { config } = await writePair(test, authority.issue());
    const served = await serve(test, config);
    const { port } = served;
    for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]) {
      const text = await plainExchange(
        port,
        `${method} /v2/ HTTP/1.1\r\nHost: m\r\n\r\n`,
      );
      assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/, method);
      assert.match(text, /\r\nConnection: close\r\n/);
      assert.match(text, /\r\n\r\n[^\n]*speaks TLS[^\n]*https:[^\n]*\n$/);
    }
    assert.equal(served.count(), 0);
    assert.equal((await ask(port, { ca: authority.cert })).status, 200);
  });

  void it("gives other bytes that are not TLS no answer, and closes the connection", async (test) => {
    const authority = createCertificateAuthority();
    const { config } = await writePair(test, authority.issue());
    const { port } = await serve(test, config);
    for (const bytes of ["\0\0\0\0\0\0\0\0", "SSH-2.0-OpenSSH_9.2\r\n"]) {
      const text = await plainExchange(port, bytes);
      assert.doesNotMatch(text, /HTTP/);
    }
    assert.equal((await ask(port, { ca: authority.cert })).status, 200);
  });

  void it("closes a connection whose client ends it before or in the handshake", async (test) => {
    const authority = createCertificateAuthority();
    const { config } = await writePair(test, authority.issue());
    const log = createLogger({ level: "info" }, { write: () => {} });
    const settings = { config, isCertificateRequired: true };
    const tls = await openServerTls(settings, log);
    const open = new Set<unknown>();
    const listeners = new Listeners(
      [{ host: "127.0.0.1", port: 0 }],
      (_request, response) => response.end("here"),
      (options, listener) => {
        const server = tls.createServer(options, listener);
        keepHalfOpen(server, (socket) => socket);
        server.on("connection", (socket) => {
          open.add(socket);
          socket.once("close", () => open.delete(socket));
        });
        return server;
      },
    );
    releaseAfter(test, async () => {
      tls.close();
      await listeners.close(0);
    });
    const [address = ""] = await listeners.listen("listen");
    const port = Number(/:(\d+)$/.exec(address)?.[1]);
    const began = performance.now();
    for (const bytes of ["", "\x16\x03\x01\x02\x00\x01\x00"]) {
      const socket = connectPlain({ port, host: "127.0.0.1" });
      socket.on("error", () => {}).resume();
      socket.end(bytes, "latin1");
      await once(socket, "close");
    }
    assert.ok(performance.now() - began < 9_000, "not by the time limit");
    assert.equal(open.size, 0);
  });

  void it("uses a new pair for new connections, and keeps open connections", async (test) => {
    const authority = createCertificateAuthority();
    const first = authority.issue();
    const { config, write } = await writePair(test, first);
    const tls = await serve(test, config);
    const ca = authority.cert;
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca });
    releaseAfter(test, () => agent.destroy());
    const before = await ask(tls.port, { agent });
    await write(authority.issue());
    await tls.check();
    const onTheOld = await ask(tls.port, { agent });
    const onANew = await ask(tls.port, { ca });
    assert.equal(onTheOld.serial, before.serial);
    assert.notEqual(onANew.serial, before.serial);
    assert.deepEqual(
      [before.body, onTheOld.body, onANew.body],
      ["1", "2", "3"],
    );
  });

  void it("follows a folder that is swapped under a link, as Kubernetes does", async (test) => {
    const authority = createCertificateAuthority();
    const root = await tempDir(test, "tls-");
    const one = await writePair(test, authority.issue());
    const two = await writePair(test, authority.issue());
    await symlink(one.folder, join(root, "..data"));
    const tls = await serve(test, {
      certificateFile: join(root, "..data/tls.crt"),
      keyFile: join(root, "..data/tls.key"),
      clientCaFile: undefined,
    });
    const ca = authority.cert;
    const before = await ask(tls.port, { ca });
    await symlink(two.folder, join(root, "..next"));
    await rename(join(root, "..next"), join(root, "..data"));
    await tls.check();
    assert.notEqual((await ask(tls.port, { ca })).serial, before.serial);
  });

  void it("keeps the old pair and logs it if the new one does not match, is truncated or missing", async (test) => {
    const authority = createCertificateAuthority();
    const first = authority.issue();
    const other = authority.issue();
    const { config, write } = await writePair(test, first);
    const tls = await serve(test, config);
    const ca = authority.cert;
    const { serial } = await ask(tls.port, { ca });
    const spoil: readonly (() => Promise<void>)[] = [
      () => write({ cert: other.cert }),
      () => write({ cert: first.cert, key: other.key }),
      () => write({ key: first.key.slice(0, 60) }),
      () => write({ cert: "", key: first.key }),
      () => rm(config.certificateFile),
    ];
    for (const [index, spoilt] of spoil.entries()) {
      await spoilt();
      await tls.check();
      assert.equal((await ask(tls.port, { ca })).serial, serial);
      const errors = tls.log.filter(({ level }) => level === "error");
      assert.equal(errors.length, index + 1);
      assert.ok(!JSON.stringify(errors).includes("PRIVATE KEY"));
    }
    await write(other);
    await tls.check();
    assert.notEqual((await ask(tls.port, { ca })).serial, serial);
  });

  void it("does not start with a certificate and a key that do not match", async (test) => {
    const authority = createCertificateAuthority();
    const { config, write } = await writePair(test, authority.issue());
    await write({ key: authority.issue().key });
    await assert.rejects(serve(test, config), /the key of another certificate/);
  });

  void it("logs a warning about an expired certificate", async (test) => {
    const authority = createCertificateAuthority();
    const notAfter = new Date(Date.now() - 1000);
    const { config } = await writePair(test, authority.issue({ notAfter }));
    const { log } = await serve(test, config);
    assert.deepEqual(
      log.map(({ level, msg }) => [level, msg]),
      [["warn", "the certificate expires soon, or has expired"]],
    );
  });

  void it("admits only clients with a certificate of the configured authority", async (test) => {
    const authority = createCertificateAuthority();
    const clients = createCertificateAuthority("clients");
    const { config } = await writePair(test, authority.issue(), clients.cert);
    const mirror = await startMirror(test, [], { tls: config });
    const ca = authority.cert;
    const good = clients.issue();
    const { status } = await ask(mirror.port, { ca, ...good });
    assert.equal(status, 200);
    const stranger = createCertificateAuthority("strangers").issue();
    for (const one of [{}, stranger]) {
      await assert.rejects(ask(mirror.port, { ca, ...one }));
    }
    const ended = clients.issue({ notAfter: new Date(Date.now() - 1000) });
    await assert.rejects(ask(mirror.port, { ca, ...ended }));
  });
});
