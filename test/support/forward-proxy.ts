import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  request as httpRequest,
  type ServerResponse,
} from "node:http";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { type AfterTest, releaseAfter } from "./after-test.ts";

/** One request that a forward proxy received. */
export interface ProxiedRequest {
  /** `CONNECT` for a tunnel. */
  readonly method: string;
  /** Host and port as sent by the client. */
  readonly host: string;
  readonly authorization: string | undefined;
}

/**
 * A forward proxy for plain HTTP and for tunnels. It resolves host names by a table of the test, so
 * that names of real registries lead to the test's listeners.
 */
export class ForwardProxy {
  readonly requests: ProxiedRequest[] = [];
  readonly #hosts: ReadonlyMap<string, number>;
  readonly #sockets = new Set<Duplex>();
  /** Status sent instead of 200 or of the target's response. */
  status: number | undefined;
  #port = 0;

  private constructor(hosts: Readonly<Record<string, number>>) {
    this.#hosts = new Map(Object.entries(hosts));
  }

  /** @param hosts maps `name:port` to a port on the loopback */
  static async start(
    test: AfterTest,
    hosts: Readonly<Record<string, number>>,
  ): Promise<ForwardProxy> {
    const proxy = new ForwardProxy(hosts);
    const server = createServer((request, response) => {
      proxy.#forward(request, response);
    });
    server.on("connect", (request: IncomingMessage, socket: Duplex) => {
      proxy.#tunnel(request, socket);
    });
    server.on("connection", (socket: Socket) => proxy.#hold(socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (typeof address !== "object" || address === null) {
      throw new Error("the proxy has no port");
    }
    proxy.#port = address.port;
    releaseAfter(test, async () => {
      for (const socket of proxy.#sockets) socket.destroy();
      server.close();
      await once(server, "close");
    });
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/`;
  }

  #hold(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #note(request: IncomingMessage, host: string): number | undefined {
    this.requests.push({
      method: request.method ?? "",
      host,
      authorization: request.headers["proxy-authorization"],
    });
    return this.#hosts.get(host);
  }

  #forward(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "");
    const host = `${url.hostname}:${url.port === "" ? "80" : url.port}`;
    const port = this.#note(request, host);
    if (this.status !== undefined || port === undefined) {
      response.writeHead(this.status ?? 502).end();
      return;
    }
    const { "proxy-authorization": _, ...headers } = request.headers;
    const onward = httpRequest(
      {
        host: "127.0.0.1",
        port,
        method: request.method,
        path: url.pathname + url.search,
        headers,
      },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  }

  #tunnel(request: IncomingMessage, socket: Duplex): void {
    const port = this.#note(request, request.url ?? "");
    if (this.status !== undefined || port === undefined) {
      socket.end(`HTTP/1.1 ${this.status ?? 502} No\r\n\r\n`);
      return;
    }
    const onward = connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      onward.pipe(socket);
      socket.pipe(onward);
    });
    this.#hold(onward);
    onward.on("close", () => socket.destroy());
    socket.on("close", () => onward.destroy());
  }
}
