import type {
  RequestListener,
  Server,
  ServerOptions as HttpOptions,
} from "node:http";
import type { createServer, Server as TlsServer } from "node:https";
import type { TLSSocket } from "node:tls";
import type { ServerTlsConfig } from "../../config/config.ts";
import { formatFlaw } from "../../config/fault.ts";
import { type FileWatch, watchFiles } from "../../config/files/file-watch.ts";
import {
  readServerTls,
  type ServerTlsFiles,
} from "../../config/files/server-tls-files.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { answerPlainRequests } from "./plain-on-tls.ts";

/** Creates TLS servers. Reloads their certificate when its files change. */
export interface ServerTls {
  readonly createServer: (
    options: HttpOptions,
    listener: RequestListener,
  ) => Server;
  /** Reads the files now, if they changed. */
  check(): Promise<void>;
  /** Reads the files of other settings. @throws Error if they are invalid */
  prepare(settings: ServerTlsSettings): Promise<PreparedTls>;
  close(): void;
}

/** Other TLS settings. The caller calls exactly one of the methods. */
export interface PreparedTls {
  /**
   * Applies the settings to new connections. Open connections stay, except those without a
   * certificate if one is required now.
   */
  apply(): void;
  abandon(): void;
}

export interface ServerTlsSettings {
  readonly config: ServerTlsConfig;
  /** Whether connections without a client certificate are closed. */
  readonly isCertificateRequired: boolean;
}

/** Closes a connection whose client does not finish the handshake. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Logs a warning if the certificate expires within this time. */
const EXPIRY_WARNING_MS = 14 * 86_400_000;

/**
 * Loads TLS; a mirror without a certificate never imports it.
 *
 * A changed file applies to new connections; open connections keep their keys. A certificate and a
 * key that do not match, as while both files are being written, are logged and not used.
 *
 * @throws Error if the files are invalid at the start
 */
export async function openServerTls(
  settings: ServerTlsSettings,
  log: Logger,
): Promise<ServerTls> {
  const [https, tls] = await Promise.all([
    import("node:https"),
    import("node:tls"),
  ]);
  const servers = new TlsServers(https.createServer, settings, log);
  const prepare = async (next: ServerTlsSettings): Promise<() => void> => {
    const files = await readFiles(next.config);
    const options = secureOptions(files);
    // Throws if OpenSSL rejects the files, before any server uses them.
    tls.createSecureContext(options);
    return () => servers.apply(next, options, files);
  };
  const follow = ({ config }: ServerTlsSettings): Promise<FileWatch> =>
    watchFiles(filesOf(config), async () => {
      const { settings: current } = servers;
      const { certificateFile } = current.config;
      try {
        const apply = await prepare(current);
        // Other settings were applied in the meantime.
        if (servers.settings !== current) return;
        apply();
        log.info({ certificateFile }, "reloaded the changed certificate file");
      } catch (error) {
        log.error(
          { err: error, certificateFile },
          "rejected the changed certificate; the previous one stays in effect",
        );
      }
    });
  const followWith = async (next: ServerTlsSettings) => {
    const watch = await follow(next);
    try {
      return { watch, apply: await prepare(next) };
    } catch (error) {
      watch.close();
      throw error;
    }
  };

  const first = await followWith(settings);
  first.apply();
  let { watch } = first;
  return {
    createServer: (options, listener) => servers.create(options, listener),
    check: () => watch.check(),
    prepare: async (next) => {
      const prepared = await followWith(next);
      return {
        apply: () => {
          prepared.apply();
          watch.close();
          watch = prepared.watch;
        },
        abandon: () => prepared.watch.close(),
      };
    },
    close: () => watch.close(),
  };
}

/** The TLS servers and the settings that apply to them. */
class TlsServers {
  readonly #createServer: typeof createServer;
  readonly #log: Logger;
  readonly #servers: TlsServer[] = [];
  /** Open connections without an authorised client certificate. */
  readonly #unauthorized = new Set<TLSSocket>();
  #settings: ServerTlsSettings;
  #options: SecureOptions | undefined;

  constructor(
    createTlsServer: typeof createServer,
    settings: ServerTlsSettings,
    log: Logger,
  ) {
    this.#createServer = createTlsServer;
    this.#settings = settings;
    this.#log = log;
  }

  get settings(): ServerTlsSettings {
    return this.#settings;
  }

  apply(
    settings: ServerTlsSettings,
    options: SecureOptions,
    files: ServerTlsFiles,
  ): void {
    this.#options = options;
    this.#settings = settings;
    for (const server of this.#servers) {
      server.setSecureContext(options);
      // Node reads it for each connection.
      Object.assign(server, { requestCert: requestsCertificate(settings) });
    }
    for (const socket of this.#unauthorized) {
      if (!isAllowed(socket, settings)) socket.destroy();
    }
    warnBeforeExpiry(files, this.#log);
  }

  create(options: HttpOptions, listener: RequestListener): TlsServer {
    const server = this.#createServer(
      {
        ...options,
        ...this.#options,
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
        requestCert: requestsCertificate(this.#settings),
        // Checked below: a client without a certificate may have a password.
        rejectUnauthorized: false,
      },
      listener,
    );
    server.prependListener("secureConnection", (socket) => {
      if (!isAllowed(socket, this.#settings)) socket.destroy();
      if (socket.authorized) return;
      this.#unauthorized.add(socket);
      socket.once("close", () => this.#unauthorized.delete(socket));
    });
    answerPlainRequests(server);
    this.#servers.push(server);
    return server;
  }
}

type SecureOptions = ReturnType<typeof secureOptions>;

function secureOptions({ certificates, key, clientCa }: ServerTlsFiles) {
  return {
    cert: certificates,
    key,
    minVersion: "TLSv1.2" as const,
    ...(clientCa === undefined ? {} : { ca: clientCa }),
  };
}

function filesOf(config: ServerTlsConfig): string[] {
  const { certificateFile, keyFile, clientCaFile } = config;
  return [certificateFile, keyFile].concat(clientCaFile ?? []);
}

/** @throws Error with a message that contains nothing of the key */
async function readFiles(config: ServerTlsConfig): Promise<ServerTlsFiles> {
  const read = await readServerTls(config);
  if (read.ok) return read.files;
  throw new Error(
    read.flaws
      .map(({ key, ...flaw }) => `tls.${key}: ${formatFlaw(flaw)}`)
      .join("; "),
  );
}

function requestsCertificate({ config }: ServerTlsSettings): boolean {
  return config.clientCaFile !== undefined;
}

/** A certificate that a client shows must be valid, even if none is required. */
function isAllowed(socket: TLSSocket, settings: ServerTlsSettings): boolean {
  if (!requestsCertificate(settings) || socket.authorized) return true;
  const isShown = Object.keys(socket.getPeerCertificate()).length > 0;
  return !isShown && !settings.isCertificateRequired;
}

function warnBeforeExpiry({ notAfter }: ServerTlsFiles, log: Logger): void {
  if (notAfter.getTime() - Date.now() > EXPIRY_WARNING_MS) return;
  log.warn({ notAfter }, "the certificate expires soon, or has expired");
}
