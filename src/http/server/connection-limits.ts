import type { Server } from "node:http";
import type { Socket } from "node:net";
import { addressGroup, canonicalAddress } from "../client-auth/networks.ts";
import { IdleList, IdlePlace } from "./idle-list.ts";

export interface ConnectionBounds {
  /** Of all listeners together. */
  readonly connections: number;
  /** Of one address, or of one /64 of IPv6. */
  readonly connectionsPerAddress: number;
}

export interface ConnectionLimitsOptions extends ConnectionBounds {
  /** Proxies speak for many clients: of them only the limit of all is asked. */
  readonly isTrustedProxy?: (address: string) => boolean;
  /** Told of every connection that is closed for another's sake, or refused. */
  readonly onCut?: (what: "closed" | "refused") => void;
}

/** Bounds how many connections there are. */
export interface ConnectionLimits {
  /** Counts the server's connections from now on. */
  guard(server: Server): void;
  /** A connection that is counted; undefined for one that was refused. */
  connectionOf(socket: Socket): BusyPlace | undefined;
  /** How many are open. */
  readonly open: number;
  /** Sets other bounds; the longest idle ones make room as new ones come. */
  setBounds(bounds: ConnectionBounds): void;
}

/** Told of the requests of one connection: one that is busy is not closed for others. */
export interface BusyPlace {
  /** The connection that was accepted: below TLS, if that is spoken on it. */
  readonly socket: Socket;
  begin(): void;
  /** Called once for each {@link begin}. */
  readonly end: () => void;
}

/** The connections of one address, or of all. */
class Crowd {
  count = 0;
  /** Those without a running request. */
  readonly idle = new IdleList<Connection>();
}

/** One that is open, until it leaves. */
class Connection implements BusyPlace {
  readonly socket: Socket;
  readonly #all: Crowd;
  readonly #inAll = new IdlePlace<Connection>(this);
  /** Those of its address, where these are counted. */
  readonly #own: Crowd | undefined;
  readonly #inOwn = new IdlePlace<Connection>(this);
  #running = 0;
  #isGone = false;

  constructor(socket: Socket, all: Crowd, own: Crowd | undefined) {
    this.socket = socket;
    this.#all = all;
    this.#own = own;
    all.count += 1;
    if (own !== undefined) own.count += 1;
    this.#rest();
  }

  begin(): void {
    this.#running += 1;
    if (this.#isGone) return;
    this.#all.idle.leave(this.#inAll);
    this.#own?.idle.leave(this.#inOwn);
  }

  leave(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#all.idle.leave(this.#inAll);
    this.#own?.idle.leave(this.#inOwn);
    this.#all.count -= 1;
    if (this.#own !== undefined) this.#own.count -= 1;
  }

  readonly end = (): void => {
    this.#running -= 1;
    if (this.#running === 0 && !this.#isGone) this.#rest();
  };

  #rest(): void {
    this.#all.idle.enter(this.#inAll);
    this.#own?.idle.enter(this.#inOwn);
  }
}

/**
 * When there are too many connections the longest idle one makes room: engines keep connections
 * that they may never use again, and would take a refusal of a new one for a mirror that is down.
 * A connection that has sent half a request is idle too. Only where all are busy is the new one
 * refused.
 */
export function createConnectionLimits(
  options: ConnectionLimitsOptions,
): ConnectionLimits {
  const { onCut } = options;
  let bounds: ConnectionBounds = options;
  const all = new Crowd();
  const groups = new Map<string, Crowd>();
  /** With TLS requests come on another socket than the one that was accepted. */
  const bySocket = new WeakMap<Socket, Connection>();
  const byPeer = new Map<string, Connection>();

  const makeRoom = (crowd: Crowd | undefined, limit: number): boolean => {
    if (crowd === undefined) return true;
    while (crowd.count >= limit) {
      const { oldest } = crowd.idle;
      if (oldest === undefined) return false;
      // Not waited for: a close that is still on its way must not be counted twice.
      oldest.leave();
      oldest.socket.destroy();
      onCut?.("closed");
    }
    return true;
  };

  const accept = (socket: Socket): void => {
    const address = canonicalAddress(socket.remoteAddress);
    const group =
      options.isTrustedProxy?.(address) === true
        ? undefined
        : addressGroup(address);
    let own = group === undefined ? undefined : groups.get(group);
    if (
      !makeRoom(own, bounds.connectionsPerAddress) ||
      !makeRoom(all, bounds.connections)
    ) {
      socket.destroy();
      onCut?.("refused");
      return;
    }
    if (group !== undefined && own === undefined) {
      own = new Crowd();
      groups.set(group, own);
    }
    const connection = new Connection(socket, all, own);
    bySocket.set(socket, connection);
    const peer = peerOf(socket);
    byPeer.set(peer, connection);
    socket.once("close", () => {
      if (byPeer.get(peer) === connection) byPeer.delete(peer);
      connection.leave();
      if (group !== undefined && groups.get(group)?.count === 0) {
        groups.delete(group);
      }
    });
  };

  return {
    guard: (server) => {
      server.prependListener("connection", accept);
      server.prependListener("secureConnection", (socket: Socket) => {
        const connection = byPeer.get(peerOf(socket));
        if (connection !== undefined) bySocket.set(socket, connection);
      });
      server.prependListener("request", (_request, response) => {
        const { socket } = response;
        const connection = socket === null ? undefined : bySocket.get(socket);
        if (connection === undefined) return;
        connection.begin();
        response.on("close", connection.end);
      });
    },
    connectionOf: (socket) => bySocket.get(socket),
    get open() {
      return all.count;
    },
    setBounds: (next) => {
      bounds = next;
    },
  };
}

/** The two ends of a connection: no two open ones have them in common. */
export function peerOf(socket: Socket): string {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
