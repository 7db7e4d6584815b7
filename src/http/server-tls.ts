import type {
  RequestListener,
  Server,
  ServerOptions as HttpOptions,
} from "node:http";
import type { Server as TlsServer } from "node:https";
import type { ServerTlsConfig } from "../config/config.ts";
import { watchFiles } from "../config/file-watch.ts";
import {
  readServerTls,
  type ServerTlsFiles,
} from "../config/server-tls-files.ts";
import type { Logger } from "../telemetry/logger.ts";

/** Servers with a certificate that is taken over anew when its files change. */
export interface ServerTls {
  readonly createServer: (
    options: HttpOptions,
    listener: RequestListener,
  ) => Server;
  /** Looks at the files now. */
  check(): Promise<void>;
  close(): void;
}

/** A client that connects and never says hello is cut off. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Tells of a certificate that ends so soon. */
const SOON_MS = 14 * 86_400_000;

/**
 * Loads TLS, which a mirror without a certificate never pays for.
 *
 * A changed file is taken over for new connections; those that are open go on as they are. A pair
 * that does not fit together, as it is for a moment while both files are written, is told in the
 * log and the old one stays.
 *
 * @throws Error where the files are no good at the start
 */
export async function openServerTls(
  config: ServerTlsConfig,
  log: Logger,
): Promise<ServerTls> {
  const [https, tls] = await Promise.all([
    import("node:https"),
    import("node:tls"),
  ]);
  const servers: TlsServer[] = [];
  const watch = await watchFiles(
    [config.certificateFile, config.keyFile].concat(config.clientCaFile ?? []),
    async () => {
      const changed = await readServerTls(config);
      try {
        if (!changed.ok) {
          throw new Error(changed.flaws.map(({ seen }) => seen).join("; "));
        }
        const candidate = secureOptions(changed.files);
        // Throws for what OpenSSL refuses, before any server has it.
        tls.createSecureContext(candidate);
        for (const server of servers) server.setSecureContext(candidate);
        log.info(
          { certificateFile: config.certificateFile },
          "the certificate was read again",
        );
        warnOfEnd(changed.files, log);
      } catch (error) {
        log.error(
          { err: error, certificateFile: config.certificateFile },
          "the new certificate is no good and the old one stays",
        );
      }
    },
  );
  const read = await readServerTls(config);
  if (!read.ok) {
    watch.close();
    const [flaw] = read.flaws;
    throw new Error(`tls.${flaw?.key}: ${flaw?.seen}; ${flaw?.expected}`);
  }
  const options = secureOptions(read.files);
  warnOfEnd(read.files, log);
  return {
    createServer: (httpOptions, listener) => {
      const server = https.createServer(
        {
          ...httpOptions,
          ...options,
          handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
          requestCert: config.clientCaFile !== undefined,
          rejectUnauthorized: config.clientCaFile !== undefined,
        },
        listener,
      );
      // No answer can be sent before there is a key: one that waits for that would never end.
      server.on("tlsClientError", (_error, socket) => socket.destroy());
      servers.push(server);
      return server;
    },
    check: () => watch.check(),
    close: () => watch.close(),
  };
}

function secureOptions({ certificates, key, clientCa }: ServerTlsFiles) {
  return {
    cert: certificates,
    key,
    minVersion: "TLSv1.2" as const,
    ...(clientCa === undefined ? {} : { ca: clientCa }),
  };
}

function warnOfEnd({ notAfter }: ServerTlsFiles, log: Logger): void {
  if (notAfter.getTime() - Date.now() > SOON_MS) return;
  log.warn({ notAfter }, "the certificate ends soon, or has ended");
}
