import {
  type ConfigDocument,
  hostedOf,
  isList,
  type Pruned,
  upstreamsOf,
} from "./document.ts";
import type { KeyPath, PlacedFault } from "./fault.ts";
import { isLoopbackUrl, parseListenAddress } from "./schema/forms.ts";
import { DOCKER_HUB } from "./schema/well-known-upstreams.ts";

/** Finds faults between the keys of a hosted registry. */
export function* checkRetention(
  document: Pruned<ConfigDocument>,
  isFaulty: (path: KeyPath) => boolean,
): Generator<PlacedFault> {
  for (const [name, { retention }] of hostedOf(document)) {
    for (const [index, rule] of (retention?.rules ?? []).entries()) {
      const path = ["hosted", name, "retention", "rules", index];
      const keys = ["keepNewest", "keepPulledWithin", "keepTags"] as const;
      const keepsAny = keys.some((key) => {
        const value = rule?.[key];
        return isList(value) ? value.length > 0 : value !== undefined;
      });
      if (
        rule === undefined ||
        keepsAny ||
        keys.some((key) => isFaulty([...path, key]))
      ) {
        continue;
      }
      yield {
        path,
        seen: "a rule that keeps no tag",
        expected: "keepNewest, keepPulledWithin or keepTags beside match",
      };
    }
  }
}

/** Finds settings of hosted registries that are allowed but rarely intended. */
export function* findHostedRisks(
  document: Pruned<ConfigDocument>,
): Generator<PlacedFault> {
  const hub = upstreamsOf(document).find(([name]) => name === DOCKER_HUB)?.[1];
  for (const [name, hosted] of hostedOf(document)) {
    if (
      hosted.default === true &&
      hub !== undefined &&
      (hub.hostnames ?? []).length === 0
    ) {
      yield {
        path: ["hosted", name, "default"],
        seen: `true while ${DOCKER_HUB} is mirrored; a dockerd that has this server among its registry-mirrors asks for library/nginx without a registry, which is then hosted here`,
        expected: "no such dockerd",
        fix: `give those engines a name of this server that is in upstreams.${DOCKER_HUB}.hostnames`,
      };
    }
    if (hosted.anonymousPush === "anywhere" && isExposed(document)) {
      yield {
        path: ["hosted", name, "anonymousPush"],
        seen: "anywhere, with which every client that reaches this server may push and delete",
        expected: "access with users, or a loopback listen address",
      };
    }
  }
}

/** Returns whether clients elsewhere are admitted without a password or a certificate. */
function isExposed({ listen, access, tls }: Pruned<ConfigDocument>): boolean {
  if (access !== undefined || tls?.clientCaFile) return false;
  return (isList(listen) ? listen : [listen]).some(
    (text) => text !== undefined && !isLoopbackAddress(text),
  );
}

/** Whether only clients on this machine reach the address. */
export function isLoopbackAddress(listen: string): boolean {
  const address = parseListenAddress(listen);
  if (address === undefined) return true;
  const { host } = address;
  return isLoopbackUrl(`http://${host.includes(":") ? `[${host}]` : host}`);
}
