import type { Mirror } from "../mirror/mirror.ts";
import type { RoutedRepository } from "../mirror/upstream-routes.ts";
import type { Digest } from "../oci/digest.ts";
import { formatNextLink } from "../oci/link.ts";
import { OCI_INDEX } from "../oci/media-type.ts";
import {
  type DistributionTarget,
  formatDistributionPath,
} from "../oci/path.ts";
import {
  type Call,
  namespaceHeader,
  route,
  routeRegistry,
  targetOf,
} from "./call.ts";
import { agingHeaders, sendBytes } from "./send.ts";

/** @throws Refusal, RegistryError */
export async function sendTags(
  mirror: Mirror,
  call: Call,
  target: DistributionTarget & { kind: "tags" },
): Promise<void> {
  const routed = route(call, target.repository);
  const tags = await mirror.listTags(targetOf(routed), target);
  call.exchange.cache = tags.status;
  sendBytes(
    call.response,
    call.exchange,
    200,
    {
      "Content-Type": "application/json",
      ...nextLink(call, target, tags.page.nextLast),
      ...namespaceHeader(routed),
      "Cache-Status": tags.status.text,
      ...agingHeaders(tags),
    },
    JSON.stringify({ name: target.repository, tags: tags.page.entries }),
    call.isHead,
  );
}

/** @throws Refusal */
export async function sendReferrers(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  subject: Digest,
  artifactTypes: readonly string[],
): Promise<void> {
  call.exchange.reference = subject;
  const referrers = await mirror.listReferrers(
    targetOf(routed),
    subject,
    artifactTypes,
  );
  call.exchange.cache = referrers.status;
  sendBytes(
    call.response,
    call.exchange,
    200,
    {
      "Content-Type": OCI_INDEX,
      ...(referrers.isFiltered
        ? { "OCI-Filters-Applied": "artifactType" }
        : {}),
      ...namespaceHeader(routed),
      "Cache-Status": referrers.status.text,
      ...agingHeaders(referrers),
    },
    referrers.bytes,
    call.isHead,
  );
}

/** Names of repositories that the client may read. @throws Refusal, RegistryError */
export async function sendCatalog(
  mirror: Mirror,
  call: Call,
  target: DistributionTarget & { kind: "catalog" },
): Promise<void> {
  const routed = routeRegistry(call);
  const page = await mirror.listRepositories(
    target,
    routed.upstream?.name,
    call.admission.maySee,
  );
  sendBytes(
    call.response,
    call.exchange,
    200,
    {
      "Content-Type": "application/json",
      ...nextLink(call, target, page.nextLast),
      ...namespaceHeader(routed),
    },
    JSON.stringify({ repositories: page.entries }),
    call.isHead,
  );
}

/** Leads to the next page in the client's own spelling of the path. */
function nextLink(
  call: Call,
  target: DistributionTarget & { kind: "tags" | "catalog" },
  nextLast: string | undefined,
): { Link?: string } {
  if (nextLast === undefined) return {};
  const next = { ...call.path, target: { ...target, last: nextLast } };
  return { Link: formatNextLink(formatDistributionPath(next)) };
}
