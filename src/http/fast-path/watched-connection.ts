import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { BusyPlace } from "../server/connection-limits.ts";
import type { ReadHead } from "./read-head.ts";

/** An answer that was found, and is sent at once. */
export interface FoundAnswer {
  /** A character for each byte. */
  readonly text: string;
  /** Called once, when all of it is with the kernel or never will be. */
  readonly report: (isWhole: boolean) => void;
}

export interface WatchedConnectionOptions {
  readonly socket: Socket;
  readonly server: Pick<Server, "listening">;
  readonly place: BusyPlace | undefined;
  /** How many requests are answered on one connection; the last answer says that it is. */
  readonly maxRequests: number;
  /** Node's own listener. */
  readonly giveToNode: (chunk: Buffer) => void;
  /** @returns undefined where the bytes are no head that was read, or the answer is not at hand */
  readonly find: (chunk: Buffer) => FoundAnswer | undefined;
  readonly remember: (chunk: Buffer, head: ReadHead) => void;
}

const HEAD_END = "\r\n\r\n";

/** What Node's parser makes of one chunk. */
interface Reading {
  requests: number;
  /** The last of them. */
  request?: IncomingMessage;
  response?: ServerResponse;
  recalled?: ReadHead;
}

/**
 * Stands between a connection and Node's parser. A chunk is answered without the parser only
 * between two messages, which is known because the parser took the chunk before for exactly one
 * whole request. Whatever else comes goes to the parser, as does all that comes after it.
 */
export class WatchedConnection {
  readonly #options: WatchedConnectionOptions;
  /**
   * - `unknown`: the parser may have the beginning of a message;
   * - `between`: each chunk since was the head of a request, and came after the answer before;
   * - `odd`: something else came.
   */
  #state: "unknown" | "between" | "odd" = "unknown";
  /** Since it is watched. */
  #requests = 0;
  /** Answers that have not left yet: of a client that does not take them Node reads no further. */
  #running = 0;
  /** While the parser has a chunk that may be remembered. */
  #reading: Reading | undefined;

  constructor(options: WatchedConnectionOptions) {
    this.#options = options;
  }

  /** The listener for the connection's bytes. */
  readonly take = (chunk: Buffer): void => {
    if (this.#mayAnswer() && this.#answer(chunk)) return;
    if (this.#state === "odd") this.#options.giveToNode(chunk);
    else this.#watch(chunk);
  };

  /** Node's parser has read a head. */
  begin(request: IncomingMessage, response: ServerResponse): void {
    this.#requests += 1;
    // Node counts those only that it has read.
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

  /** The request that was just read was answered from memory. */
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
      // The last is Node's, which tells that it is the last.
      this.#requests < maxRequests - 1 &&
      // Node is about to end it.
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
    // Called back after what is before it; for the answer itself that costs a turn each time.
    socket.write("", () => {
      this.#running -= 1;
      place?.end();
      found.report(!socket.destroyed);
    });
    return true;
  }

  #watch(chunk: Buffer): void {
    const { giveToNode, remember } = this.#options;
    const isEarly = this.#running > 0;
    const reading: Reading = { requests: 0 };
    this.#reading = reading;
    giveToNode(chunk);
    this.#reading = undefined;
    const { requests, request, response, recalled } = reading;
    const isOrderly =
      !isEarly &&
      requests === 1 &&
      request?.complete === true &&
      response?.shouldKeepAlive === true &&
      isOneHead(chunk);
    // What the parser made of this chunk is not its own meaning where a message had begun before it.
    if (isOrderly && this.#state === "between" && recalled !== undefined) {
      remember(chunk, recalled);
    }
    this.#state = isOrderly ? "between" : "odd";
  }
}

function isOneHead(chunk: Buffer): boolean {
  const at = chunk.indexOf(HEAD_END);
  return at !== -1 && at + HEAD_END.length === chunk.length;
}
