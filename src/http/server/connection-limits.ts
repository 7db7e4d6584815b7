import type { Server } from "node:http";
import type { Socket } from "node:net";
import { addressGroup, canonicalAddress } from "../client-auth/networks.ts";
import { IdleList, IdlePlace } from "./idle-list.ts";

export interface ConnectionBounds {
  /** The limit of all listeners together. */
  readonly connections: number;
  /** The limit of one address, or of one /64 of IPv6. */
  readonly connectionsPerAddress: number;
}

export interface ConnectionLimitsOptions extends ConnectionBounds {
  /** A proxy has many clients: only the total limit applies to it. */
  readonly isTrustedProxy?: (address: string) => boolean;
  /** Called for every connection that is closed to make room, or refused. */
  readonly onCut?: (what: "closed" | "refused") => void;
}

/** Limits the number of connections. */
export interface ConnectionLimits {
  /** Starts counting the connections of a server. */
  guard(server: Server): void;
  /** Returns a counted connection; undefined if it was refused. */
  connectionOf(socket: Socket): BusyPlace | undefined;
  /** The number of open connections. */
  readonly open: number;
  /** Sets other limits; they apply when the next connection is accepted. */
  setBounds(bounds: ConnectionBounds): void;
}

/** Counts the requests of one connection: a busy connection is not closed for another. */
export interface BusyPlace {
  /** The accepted connection, below TLS. */
  readonly socket: Socket;
  begin(): void;
  /** Called once for each {@link begin}. */
  readonly end: () => void;
}

/** The connections of one address, or of all addresses. */
class Group {
  count = 0;
  /** The connections without a running request. */
  readonly idle = new IdleList<Connection>();
}

/** An open connection. */
class Connection implements BusyPlace {
  readonly socket: Socket;
  readonly #all: Group;
  readonly #inAll = new IdlePlace<Connection>(this);
  /** The connections of its address, if they are counted. */
  readonly #own: Group | undefined;
  readonly #inOwn = new IdlePlace<Connection>(this);
  #running = 0;
  #hasLeft = false;

  constructor(socket: Socket, all: Group, own: Group | undefined) {
    this.socket = socket;
    this.#all = all;
    this.#own = own;
    all.count += 1;
    if (own !== undefined) own.count += 1;
    this.#rest();
  }

  begin(): void {
    this.#running += 1;
    if (this.#hasLeft) return;
    this.#all.idle.leave(this.#inAll);
    this.#own?.idle.leave(this.#inOwn);
  }

  leave(): void {
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    this.#all.idle.leave(this.#inAll);
    this.#own?.idle.leave(this.#inOwn);
    this.#all.count -= 1;
    if (this.#own !== undefined) this.#own.count -= 1;
  }

  readonly end = (): void => {
    this.#running -= 1;
    if (this.#running === 0 && !this.#hasLeft) this.#rest();
  };

  #rest(): void {
    this.#all.idle.enter(this.#inAll);
    this.#own?.idle.enter(this.#inOwn);
  }
}

/**
 * Closes the longest idle connection when a new one exceeds a limit: engines keep connections that
 * they may never use again, and treat a refused connection as a mirror that is down. A connection
 * that has sent half a request is idle too. The new connection is refused only if all are busy.
 */
export function createConnectionLimits(
  options: ConnectionLimitsOptions,
): ConnectionLimits {
  const { onCut } = options;
  let bounds: ConnectionBounds = options;
  const all = new Group();
  const groups = new Map<string, Group>();
  /** With TLS the socket of a request is not the accepted socket. */
  const bySocket = new WeakMap<Socket, Connection>();
  const byPeer = new Map<string, Connection>();

  const accept = (socket: Socket): void => {
    const address = canonicalAddress(socket.remoteAddress);
    const group =
      options.isTrustedProxy?.(address) === true
        ? undefined
        : addressGroup(address);
    let own = group === undefined ? undefined : groups.get(group);
    if (
      !makeRoom(own, bounds.connectionsPerAddress, onCut) ||
      !makeRoom(all, bounds.connections, onCut)
    ) {
      socket.destroy();
      onCut?.("refused");
      return;
    }
    if (group !== undefined && own === undefined) {
      own = new Group();
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

/** Closes the longest idle connections of a group at its limit. @returns false if all are busy */
function makeRoom(
  group: Group | undefined,
  limit: number,
  onCut: ConnectionLimitsOptions["onCut"],
): boolean {
  if (group === undefined) return true;
  while (group.count >= limit) {
    const { oldest } = group.idle;
    if (oldest === undefined) return false;
    // Without waiting for `close`: the connection must not be counted until then.
    oldest.leave();
    oldest.socket.destroy();
    onCut?.("closed");
  }
  return true;
}

/** Returns both ends of a connection, which identify it while it is open. */
export function peerOf(socket: Socket): string {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
