import type {
  RequestListener,
  Server,
  ServerOptions as HttpOptions,
} from "node:http";
import type { Server as TlsServer } from "node:https";
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

/** Servers with a certificate that is taken over anew when its files change. */
export interface ServerTls {
  readonly createServer: (
    options: HttpOptions,
    listener: RequestListener,
  ) => Server;
  /** Looks at the files now. */
  check(): Promise<void>;
  /** Makes other files ready. @throws Error where they are no good */
  prepare(settings: ServerTlsSettings): Promise<PreparedTls>;
  close(): void;
}

/** One of both is called. */
export interface PreparedTls {
  /**
   * In force at once, for new connections. Those that are open stay, unless a certificate is needed
   * from then on that they did not show.
   */
  takeOver(): void;
  abandon(): void;
}

export interface ServerTlsSettings {
  readonly config: ServerTlsConfig;
  /** Where a certificate is asked of clients: nobody comes in without one. */
  readonly isCertificateRequired: boolean;
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
  settings: ServerTlsSettings,
  log: Logger,
): Promise<ServerTls> {
  const [https, tls] = await Promise.all([
    import("node:https"),
    import("node:tls"),
  ]);
  const servers: TlsServer[] = [];
  let inForce = settings;
  let options: SecureOptions;
  let watch: FileWatch;
  /** Open connections of clients that no authority vouched for. */
  const strangers = new Set<TLSSocket>();
  const prepare = async (next: ServerTlsSettings): Promise<() => void> => {
    const files = await readFiles(next.config);
    const candidate = secureOptions(files);
    // Throws for what OpenSSL refuses, before any server has it.
    tls.createSecureContext(candidate);
    return () => {
      options = candidate;
      inForce = next;
      for (const server of servers) {
        server.setSecureContext(candidate);
        // Looked at by Node for each connection.
        Object.assign(server, { requestCert: asksForCertificate(next) });
      }
      for (const socket of strangers) {
        if (!mayEnter(socket, next)) socket.destroy();
      }
      warnOfEnd(files, log);
    };
  };
  const follow = ({ config }: ServerTlsSettings): Promise<FileWatch> =>
    watchFiles(filesOf(config), async () => {
      const current = inForce;
      const { certificateFile } = current.config;
      try {
        const takeOver = await prepare(current);
        // Others came into force meanwhile.
        if (inForce !== current) return;
        takeOver();
        log.info({ certificateFile }, "the certificate was read again");
      } catch (error) {
        log.error(
          { err: error, certificateFile },
          "the new certificate is no good and the old one stays",
        );
      }
    });

  watch = await follow(settings);
  try {
    (await prepare(settings))();
  } catch (error) {
    watch.close();
    throw error;
  }
  return {
    createServer: (httpOptions, listener) => {
      const server = https.createServer(
        {
          ...httpOptions,
          ...options,
          handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
          requestCert: asksForCertificate(inForce),
          // Judged below: whoever shows none may have another way in.
          rejectUnauthorized: false,
        },
        listener,
      );
      server.prependListener("secureConnection", (socket) => {
        if (!mayEnter(socket, inForce)) socket.destroy();
        if (socket.authorized) return;
        strangers.add(socket);
        socket.once("close", () => strangers.delete(socket));
      });
      answerPlainRequests(server);
      servers.push(server);
      return server;
    },
    check: () => watch.check(),
    prepare: async (next) => {
      const nextWatch = await follow(next);
      try {
        const takeOver = await prepare(next);
        return {
          takeOver: () => {
            takeOver();
            watch.close();
            watch = nextWatch;
          },
          abandon: () => nextWatch.close(),
        };
      } catch (error) {
        nextWatch.close();
        throw error;
      }
    },
    close: () => watch.close(),
  };
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

/** @throws Error, in words that hold nothing of the key */
async function readFiles(config: ServerTlsConfig): Promise<ServerTlsFiles> {
  const read = await readServerTls(config);
  if (read.ok) return read.files;
  throw new Error(
    read.flaws
      .map(({ key, ...flaw }) => `tls.${key}: ${formatFlaw(flaw)}`)
      .join("; "),
  );
}

function asksForCertificate({ config }: ServerTlsSettings): boolean {
  return config.clientCaFile !== undefined;
}

/** A certificate that is shown must be good, even where none is needed: whoever shows a bad one is told. */
function mayEnter(socket: TLSSocket, settings: ServerTlsSettings): boolean {
  if (!asksForCertificate(settings) || socket.authorized) return true;
  const isShown = Object.keys(socket.getPeerCertificate()).length > 0;
  return !isShown && !settings.isCertificateRequired;
}

function warnOfEnd({ notAfter }: ServerTlsFiles, log: Logger): void {
  if (notAfter.getTime() - Date.now() > SOON_MS) return;
  log.warn({ notAfter }, "the certificate ends soon, or has ended");
}
