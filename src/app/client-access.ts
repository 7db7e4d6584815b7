import {
  type AccessControl,
  openAccessControl,
} from "../http/client-auth/access-control.ts";
import {
  createClientAddress,
  type SwitchableClientAddress,
} from "../http/server/client-address.ts";
import type { ServerTls } from "../http/server/server-tls.ts";
import type { Routes } from "../routing/routes.ts";
import { tlsSettings } from "./apply-config.ts";
import type { Foundation } from "./foundation.ts";

/** Parts that decide who a client is and what it may do. */
export interface ClientAccess {
  /** Undefined if the configuration of the start has no `tls`. */
  readonly tls: ServerTls | undefined;
  readonly clientAddress: SwitchableClientAddress;
  readonly access: AccessControl;
}

/** @throws Error if a file of certificates, users or keys is faulty */
export async function openClientAccess(
  { config, clock, log, audit }: Foundation,
  routes: Routes,
): Promise<ClientAccess> {
  const settings = tlsSettings(config);
  const clientAddress = createClientAddress(config.trustedProxies ?? []);
  return {
    tls:
      settings === undefined
        ? undefined
        : await (
            await import("../http/server/server-tls.ts")
          ).openServerTls(settings, log),
    clientAddress,
    access: await openAccessControl({
      config: config.access,
      routes,
      clock,
      log,
      audit,
      clientAddress,
    }),
  };
}
