import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { BusyPlace } from "../server/connection-limits.ts";
import type { ReadHead } from "./read-head.ts";

/** A response from memory. */
export interface FoundAnswer {
  /** One character for each byte. */
  readonly text: string;
  /** Called once, when the kernel has accepted all bytes or the connection has failed. */
  readonly report: (isWhole: boolean) => void;
}

export interface WatchedConnectionOptions {
  readonly socket: Socket;
  readonly server: Pick<Server, "listening">;
  readonly place: BusyPlace | undefined;
  /** The number of requests on one connection; the last response closes it. */
  readonly maxRequests: number;
  /** Calls Node's own listener. */
  readonly passToNode: (chunk: Buffer) => void;
  /** @returns undefined if the bytes are not a known head, or the manifest is not in memory */
  readonly find: (chunk: Buffer) => FoundAnswer | undefined;
  readonly remember: (chunk: Buffer, head: ReadHead) => void;
}

const HEAD_END = "\r\n\r\n";

/** The result of Node's parser for one chunk. */
interface Reading {
  requests: number;
  /** The last request of the chunk. */
  request?: IncomingMessage;
  response?: ServerResponse;
  recalled?: ReadHead;
}

/**
 * Receives the bytes of a connection before Node's parser does. It answers a chunk without the parser
 * only between two messages: the parser has read the previous chunk as exactly one whole request. If
 * any other chunk arrives, that chunk and all later ones go to the parser.
 */
export class WatchedConnection {
  readonly #options: WatchedConnectionOptions;
  /**
   * - `unknown`: the parser may have read the beginning of a message;
   * - `between`: every chunk since was one request head, received after the previous response;
   * - `node`: another chunk was received; Node's parser reads all later ones.
   */
  #state: "unknown" | "between" | "node" = "unknown";
  /** Requests since the connection is watched. */
  #requests = 0;
  /** Responses that have not been sent completely. */
  #running = 0;
  /** Set while the parser reads a chunk that may be remembered. */
  #reading: Reading | undefined;

  constructor(options: WatchedConnectionOptions) {
    this.#options = options;
  }

  /** The `data` listener of the connection. */
  readonly take = (chunk: Buffer): void => {
    if (this.#mayAnswer() && this.#answer(chunk)) return;
    if (this.#state === "node") this.#options.passToNode(chunk);
    else this.#watch(chunk);
  };

  /** Called when Node's parser has read a head. */
  begin(request: IncomingMessage, response: ServerResponse): void {
    this.#requests += 1;
    // Node counts only the requests that it has parsed.
    if (this.#requests >= this.#options.maxRequests) {
      response.shouldKeepAlive = false;
    }
    this.#running += 1;
    response.on("close", this.#end);
    if (this.#reading === undefined) return;
    this.#reading.requests += 1;
    this.#reading.request = request;
    this.#reading.response = response;
  }

  /** Called when the request that was just read was answered from memory. */
  noteRecalled(response: ServerResponse, head: ReadHead): void {
    if (this.#reading?.response === response) this.#reading.recalled = head;
  }

  readonly #end = (): void => {
    this.#running -= 1;
  };

  #mayAnswer(): boolean {
    const { socket, server, maxRequests } = this.#options;
    return (
      this.#state === "between" &&
      this.#running === 0 &&
      // Node sends the last response, with `Connection: close`.
      this.#requests < maxRequests - 1 &&
      // False if Node is about to close the connection.
      socket.writable &&
      server.listening
    );
  }

  #answer(chunk: Buffer): boolean {
    const { socket, place, find } = this.#options;
    const found = find(chunk);
    if (found === undefined) return false;
    this.#requests += 1;
    place?.begin();
    socket.write(found.text, "latin1");
    if (socket.writableLength === 0) {
      place?.end();
      found.report(true);
      return true;
    }
    this.#running += 1;
    // Called back after the response was written. A callback for the response itself would cost a
    // turn of the event loop each time.
    socket.write("", () => {
      this.#running -= 1;
      place?.end();
      found.report(!socket.destroyed);
    });
    return true;
  }

  #watch(chunk: Buffer): void {
    const { passToNode, remember } = this.#options;
    const isEarly = this.#running > 0;
    const reading: Reading = { requests: 0 };
    this.#reading = reading;
    passToNode(chunk);
    this.#reading = undefined;
    const { requests, request, response, recalled } = reading;
    const isOrderly =
      !isEarly &&
      requests === 1 &&
      request?.complete === true &&
      response?.shouldKeepAlive === true &&
      isOneHead(chunk);
    // If a message had begun before this chunk, the result does not belong to its bytes alone.
    if (isOrderly && this.#state === "between" && recalled !== undefined) {
      remember(chunk, recalled);
    }
    this.#state = isOrderly ? "between" : "node";
  }
}

function isOneHead(chunk: Buffer): boolean {
  const at = chunk.indexOf(HEAD_END);
  return at !== -1 && at + HEAD_END.length === chunk.length;
}
