import type { Mirror } from "../../mirror/mirror.ts";
import type { ListCatalog } from "../../images/catalog.ts";
import {
  registryName,
  type RoutedRepository,
  type Routes,
} from "../../routing/routes.ts";
import { formatNextLink } from "../../oci/link.ts";
import { OCI_INDEX } from "../../oci/media-type.ts";
import {
  type DistributionTarget,
  formatDistributionPath,
} from "../../oci/path.ts";
import { addNamespace, type Call, routeRegistry, targetOf } from "./call.ts";
import { addCacheStatus, beginHead, type Head, sendBytes } from "./send.ts";

/** @throws Refusal, RegistryError */
export async function sendTags(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  target: DistributionTarget & { kind: "tags" },
): Promise<void> {
  const tags = await mirror.listTags(targetOf(routed), target);
  call.exchange.cache = tags.status;
  const head = beginHead("application/json");
  addNextLink(head, call, target, tags.page.nextLast);
  addNamespace(head, routed);
  addCacheStatus(head, tags.status, tags.ageMs, tags.isStale);
  const body = { name: target.repository, tags: tags.page.entries };
  send(call, head, JSON.stringify(body));
}

/** @throws Refusal */
export async function sendReferrers(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  { digest, artifactTypes }: DistributionTarget & { kind: "referrers" },
): Promise<void> {
  const referrers = await mirror.listReferrers(
    targetOf(routed),
    digest,
    artifactTypes,
  );
  call.exchange.cache = referrers.status;
  const { status, ageMs, isStale } = referrers;
  const head = beginHead(OCI_INDEX);
  if (referrers.isFiltered) head.push("OCI-Filters-Applied", "artifactType");
  addNamespace(head, routed);
  addCacheStatus(head, status, ageMs, isStale);
  send(call, head, referrers.bytes);
}

/** Sends the names of the repositories that the client may read. @throws Refusal, RegistryError */
export async function sendCatalog(
  listCatalog: ListCatalog,
  call: Call,
  target: DistributionTarget & { kind: "catalog" },
): Promise<void> {
  const { routes } = call;
  const routed = routeRegistry(call);
  const page = await listCatalog(
    target,
    routed.registry && registryName(routed.registry),
    call.admission.maySee,
    {
      listedName: (registry) => routes.listedName(registry),
      isHosted: (registry) => routes.findHosted(registry) !== undefined,
      isOfDefault: (name) => isOfDefault(routes, name),
    },
  );
  const head = beginHead("application/json");
  addNextLink(head, call, target, page.nextLast);
  addNamespace(head, routed);
  send(call, head, JSON.stringify({ repositories: page.entries }));
}

/** Returns whether a name without a registry is routed to the repository of that name in the hosted default. */
function isOfDefault(routes: Routes, name: string): boolean {
  const hints = { prefix: undefined, ns: undefined, host: undefined };
  const routed = routes.routeRepository(hints, name);
  return routed.ok && routed.kind === "hosted" && routed.repository === name;
}

function send(
  { response, exchange, isHead }: Call,
  head: Head,
  body: Buffer | string,
): void {
  sendBytes(response, exchange, 200, head, body, isHead);
}

/** Adds a link to the next page, with the client's own spelling of the path. */
export function addNextLink(
  head: Head,
  { requested }: Call,
  target: DistributionTarget & { kind: "tags" | "catalog" | "referrers" },
  nextLast: string | undefined,
): void {
  if (nextLast === undefined) return;
  const next = { ...requested.path, target: { ...target, last: nextLast } };
  head.push("Link", formatNextLink(formatDistributionPath(next)));
}
