import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { addressGroup, canonicalAddress } from "./client-auth/networks.ts";

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
  /** How many are open. */
  readonly open: number;
  /** Sets other bounds; the longest idle ones make room as new ones come. */
  setBounds(bounds: ConnectionBounds): void;
}

/** The connections of one address, or of all. */
interface Crowd {
  count: number;
  /** Those without a running request, the longest idle first. */
  readonly idle: Set<Connection>;
}

interface Connection {
  readonly socket: Socket;
  readonly group: string | undefined;
  running: number;
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
  const all: Crowd = { count: 0, idle: new Set() };
  const groups = new Map<string, Crowd>();
  /** With TLS requests come on another socket than the one that was accepted. */
  const bySocket = new WeakMap<Socket, Connection>();
  const byPeer = new Map<string, Connection>();

  const crowdsOf = ({ group }: Connection): Crowd[] => {
    const own = group === undefined ? undefined : groups.get(group);
    return own === undefined ? [all] : [all, own];
  };
  const remove = (connection: Connection): void => {
    for (const crowd of crowdsOf(connection)) {
      crowd.count -= 1;
      crowd.idle.delete(connection);
      if (crowd !== all && crowd.count === 0 && connection.group) {
        groups.delete(connection.group);
      }
    }
  };
  const makeRoom = (crowd: Crowd | undefined, limit: number): boolean => {
    if (crowd === undefined) return true;
    for (const oldest of crowd.idle) {
      if (crowd.count < limit) break;
      // Not waited for: a close that is still on its way must not be counted twice.
      leave(oldest);
      oldest.socket.destroy();
      onCut?.("closed");
    }
    return crowd.count < limit;
  };
  const left = new WeakSet<Connection>();
  const leave = (connection: Connection): void => {
    if (left.has(connection)) return;
    left.add(connection);
    remove(connection);
  };

  const accept = (socket: Socket): void => {
    const address = canonicalAddress(socket.remoteAddress);
    const group =
      options.isTrustedProxy?.(address) === true
        ? undefined
        : addressGroup(address);
    const own = group === undefined ? undefined : groups.get(group);
    if (
      !makeRoom(own, bounds.connectionsPerAddress) ||
      !makeRoom(all, bounds.connections)
    ) {
      socket.destroy();
      onCut?.("refused");
      return;
    }
    const connection: Connection = { socket, group, running: 0 };
    if (group !== undefined && !groups.has(group)) {
      groups.set(group, { count: 0, idle: new Set() });
    }
    for (const crowd of crowdsOf(connection)) {
      crowd.count += 1;
      crowd.idle.add(connection);
    }
    bySocket.set(socket, connection);
    const peer = peerOf(socket);
    byPeer.set(peer, connection);
    socket.once("close", () => {
      if (byPeer.get(peer) === connection) byPeer.delete(peer);
      leave(connection);
    });
  };

  const begin = (_request: IncomingMessage, response: ServerResponse): void => {
    const connection = response.socket && bySocket.get(response.socket);
    if (!connection || left.has(connection)) return;
    connection.running += 1;
    for (const crowd of crowdsOf(connection)) crowd.idle.delete(connection);
    response.once("close", () => {
      connection.running -= 1;
      if (connection.running > 0 || left.has(connection)) return;
      for (const crowd of crowdsOf(connection)) crowd.idle.add(connection);
    });
  };

  return {
    guard: (server) => {
      server.prependListener("connection", accept);
      server.prependListener("secureConnection", (socket: Socket) => {
        const connection = byPeer.get(peerOf(socket));
        if (connection !== undefined) bySocket.set(socket, connection);
      });
      server.prependListener("request", begin);
    },
    get open() {
      return all.count;
    },
    setBounds: (next) => {
      bounds = next;
    },
  };
}

/** The two ends of a connection: no two open ones have them in common. */
function peerOf(socket: Socket): string {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
