import {
  credentialsOf,
  type Pruned,
  type UpstreamDocument,
} from "./document.ts";
import { formatSeen, type KeyPath, type PlacedFault } from "./fault.ts";
import { isTemplate } from "./schema/forms.ts";

const AT_TEMPLATE = "in a template, which any registry may match";
const ONE_REGISTRY = "this setting in the entry of one registry, without *";

/**
 * Finds keys that a template may not have. Some make no sense for a registry that is not known yet;
 * the others would give a secret or trust to any host that a client names.
 */
export function* checkTemplate(
  name: string,
  upstream: Pruned<UpstreamDocument>,
): Generator<PlacedFault> {
  if (!isTemplate(name)) return;
  const { tls } = upstream;
  const places: readonly (readonly [KeyPath, unknown])[] = [
    [["default"], upstream.default],
    [["endpoints"], upstream.endpoints],
    [["aliases"], upstream.aliases],
    [["hostnames"], upstream.hostnames],
    [["tokenRealms"], upstream.tokenRealms],
    [["tls", "certificateFile"], tls?.certificateFile],
    [["tls", "keyFile"], tls?.keyFile],
  ];
  for (const [key, value] of places) {
    if (!isWritten(value)) continue;
    yield {
      path: ["upstreams", name, ...key],
      seen: `${formatSeen(value)} ${AT_TEMPLATE}`,
      expected: ONE_REGISTRY,
    };
  }
  if (tls?.insecureSkipVerify === true) {
    yield {
      path: ["upstreams", name, "tls", "insecureSkipVerify"],
      seen: `true ${AT_TEMPLATE}`,
      expected: "tls.caFile with the authority of your registries",
    };
  }
  if (credentialsOf(name, upstream).length > 0) {
    yield {
      path: ["upstreams", name, "credentials"],
      seen: `credentials ${AT_TEMPLATE}`,
      expected: ONE_REGISTRY,
    };
  }
}

/** The schema has filled in the defaults: `false` and empty lists. */
function isWritten(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return value !== undefined && value !== false && value !== "";
}
