import type { PlacedFault } from "./fault.ts";
import {
  type ConfigDocument,
  credentialsOf,
  isList,
  type Pruned,
  upstreamsOf,
} from "./document.ts";
import { isLoopbackAddress } from "./hosted-checks.ts";

/** Finds allowed settings that let other hosts read what only this mirror's credentials may read. */
export function* findExposureRisks(
  document: Pruned<ConfigDocument>,
): Generator<PlacedFault> {
  const { listen, access, tls } = document;
  const addresses = (isList(listen) ? listen : [listen]).filter(
    (text) => text !== undefined,
  );
  const isExposed = addresses.some((text) => !isLoopbackAddress(text));
  const isRestricted =
    Boolean(access?.htpasswdFile || access?.tokenServer?.realm) ||
    (access?.anonymousNetworks ?? []).length > 0;
  // With `access`, a certificate is only one of several ways to be let in.
  const isCertificateNeeded =
    Boolean(tls?.clientCaFile) && access === undefined;
  if (!isExposed || isRestricted || isCertificateNeeded) return;
  for (const [name, upstream] of upstreamsOf(document)) {
    if (credentialsOf(name, upstream).length === 0) continue;
    yield {
      path: ["upstreams", name, "credentials"],
      seen: "credentials while every client that reaches the mirror may pull what they fetched",
      expected:
        "users or anonymousNetworks in access, or a loopback listen address",
    };
  }
}
