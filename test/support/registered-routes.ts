import type { FastifyInstance } from "fastify";

export interface RegisteredRoute {
  readonly method: string;
  /** As it was registered: `/api/v1/images/*`. */
  readonly url: string;
}

/** `│   └── * (GET, HEAD)`: how deep, the part of the path, the methods. */
const LINE = /^([│ ]*)[├└]── (\S+) \(([A-Z, ]+)\)$/u;

/** Every route that the router of an app that is ready knows, by whatever way it came there. */
export function registeredRoutes(app: FastifyInstance): RegisteredRoute[] {
  const routes: RegisteredRoute[] = [];
  const above: string[] = [];
  for (const line of app.printRoutes({ commonPrefix: false }).split("\n")) {
    if (line === "") continue;
    const [, indent, part, methods] = LINE.exec(line) ?? [];
    if (indent === undefined || part === undefined || methods === undefined) {
      throw new Error(`not understood: ${line}`);
    }
    const depth = indent.length / 4;
    const parent = depth === 0 ? "" : `${above[depth - 1]}/`;
    above[depth] = parent + part;
    for (const method of methods.split(", ")) {
      routes.push({ method, url: parent + part });
    }
  }
  return routes;
}
