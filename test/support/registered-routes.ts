import type { FastifyInstance } from "fastify";

export interface RegisteredRoute {
  readonly method: string;
  // As it was registered, followed by its action: `/api/v1/images/*` and `/api/v1/images/*/pin`.
  readonly url: string;
}

/** `│   └── * (PUT, DELETE) {"action":"pin"}`: the depth, the part of the path, the methods, the action. A
 * route with an action follows its sibling without a branch. */
const LINE =
  /^([│ ]*)(?:[├└]── | {4})(\S+) \(([A-Z, ]+)\)(?: \{"action":"(\w+)"\})?$/u;

/** Every route in the router of an app that is ready. */
export function registeredRoutes(app: FastifyInstance): RegisteredRoute[] {
  const routes: RegisteredRoute[] = [];
  const above: string[] = [];
  for (const line of app.printRoutes({ commonPrefix: false }).split("\n")) {
    if (line === "") continue;
    const [, indent, part, methods, action] = LINE.exec(line) ?? [];
    if (indent === undefined || part === undefined || methods === undefined) {
      throw new Error(`got the line ${line}; expected a route`);
    }
    const depth = indent.length / 4;
    const parent = depth === 0 ? "" : `${above[depth - 1]}/`;
    above[depth] = parent + part;
    for (const method of methods.split(", ")) {
      const suffix = action === undefined ? "" : `/${action}`;
      routes.push({ method, url: parent + part + suffix });
    }
  }
  return routes;
}
