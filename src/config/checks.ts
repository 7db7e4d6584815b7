import { checkAccess, findAccessRisks } from "./access-checks.ts";
import {
  type ConfigDocument,
  credentialsOf,
  type HostedDocument,
  hostedOf,
  isList,
  type Pruned,
  type UpstreamDocument,
  upstreamsOf,
} from "./document.ts";
import { findExposureRisks } from "./exposure-checks.ts";
import type { KeyPath, PlacedFault } from "./fault.ts";
import { checkRetention, findHostedRisks } from "./hosted-checks.ts";
import { isLoopbackUrl, parseListenAddress } from "./schema/forms.ts";
import { checkTemplate } from "./template-checks.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
} from "./schema/well-known-upstreams.ts";

/**
 * Finds faults between keys, which a schema cannot express well.
 *
 * @param isFaulty reports whether the value at the place was rejected and removed, so that its absence means nothing
 */
export function checkDocument(
  document: Pruned<ConfigDocument>,
  isFaulty: (path: KeyPath) => boolean,
): PlacedFault[] {
  return [
    ...checkListeners(document),
    ...checkNames(document),
    ...checkHostnames(document),
    ...checkDefault(document),
    ...upstreamsOf(document).flatMap(([name, upstream]) => [
      ...checkTemplate(name, upstream),
      ...checkCredentials(name, upstream, isFaulty),
      ...checkClientCertificate(name, upstream, isFaulty),
    ]),
    ...checkRetention(document, isFaulty),
    ...checkAccess(document, isFaulty),
  ];
}

/** Finds settings that are allowed but risky; logged at every start. */
export function findRisks(document: Pruned<ConfigDocument>): PlacedFault[] {
  const insecure = upstreamsOf(document)
    .filter(([, upstream]) => upstream.tls?.insecureSkipVerify === true)
    .map(([name]) => ({
      path: ["upstreams", name, "tls", "insecureSkipVerify"],
      seen: "true, which lets any host on the network path answer as the upstream",
      expected: "caFile with the authority that signed its certificate",
    }));
  return [
    ...insecure,
    ...findAccessRisks(document),
    ...findExposureRisks(document),
    ...findHostedRisks(document),
  ];
}

function* checkListeners(
  document: Pruned<ConfigDocument>,
): Generator<PlacedFault> {
  const { listen } = document;
  const places: [KeyPath, string | undefined][] = isList(listen)
    ? [...listen.entries()].map(([index, text]) => [["listen", index], text])
    : [[["listen"], listen]];
  const operator = document.operator?.listen;
  if (typeof operator === "string") {
    places.push([["operator", "listen"], operator]);
  }
  const seen: { readonly host: string; readonly port: number }[] = [];
  for (const [path, text] of places) {
    const address = parseListenAddress(text ?? "");
    if (address === undefined || address.port === 0) continue;
    const taken = seen.some(
      ({ host, port }) =>
        port === address.port &&
        (host === address.host || isWildcard(host) || isWildcard(address.host)),
    );
    if (taken) {
      yield {
        path,
        seen: `${text}, an address of another listener`,
        expected: "a port that no other listener uses",
      };
    }
    seen.push(address);
  }
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** Names and aliases share one name space: each selects one upstream or hosted registry. */
function* checkNames(document: Pruned<ConfigDocument>): Generator<PlacedFault> {
  const upstreams = upstreamsOf(document);
  const owners = new Map<string, string>();
  for (const [name, { aliases }] of upstreams) {
    if (name !== DOCKER_HUB || aliases !== undefined) continue;
    for (const alias of DOCKER_HUB_ALIASES) {
      owners.set(
        alias,
        `already an alias of ${DOCKER_HUB} unless that has aliases: []`,
      );
    }
  }
  const places: [KeyPath, string, string][] = [];
  for (const [name] of upstreams) {
    places.push([["upstreams", name], name, `the name of upstreams.${name}`]);
  }
  for (const [name, upstream] of upstreams) {
    for (const [index, alias] of (upstream.aliases ?? []).entries()) {
      if (alias === undefined) continue;
      const path = ["upstreams", name, "aliases", index];
      places.push([path, alias, `already an alias of upstreams.${name}`]);
    }
  }
  for (const [name] of hostedOf(document)) {
    places.push([["hosted", name], name, `the name of hosted.${name}`]);
  }
  for (const [path, name, role] of places) {
    const owner = owners.get(name);
    if (owner === undefined) owners.set(name, role);
    else
      yield {
        path,
        seen: `${name}, ${owner}`,
        expected: "a name that is used once",
      };
  }
}

function* checkHostnames(
  document: Pruned<ConfigDocument>,
): Generator<PlacedFault> {
  const owners = new Map<string, string>();
  for (const [key, name, { hostnames = [] }] of registriesOf(document)) {
    for (const [index, hostname] of hostnames.entries()) {
      if (hostname === undefined) continue;
      const owner = owners.get(hostname);
      if (owner === undefined) owners.set(hostname, `${key}.${name}`);
      else {
        yield {
          path: [key, name, "hostnames", index],
          seen: `${hostname}, already a hostname of ${owner}`,
          expected: "a hostname that is used once",
        };
      }
    }
  }
}

function* checkDefault(
  document: Pruned<ConfigDocument>,
): Generator<PlacedFault> {
  const [first, ...others] = registriesOf(document).filter(
    ([, , registry]) => registry.default === true,
  );
  for (const [key, name] of others) {
    yield {
      path: [key, name, "default"],
      seen: `true, as at ${first?.[0]}.${first?.[1]}`,
      expected: "at most one default registry",
    };
  }
}

/** Returns the key, the name and the settings of each upstream, then of each hosted registry. */
function registriesOf(
  document: Pruned<ConfigDocument>,
): (readonly [
  "upstreams" | "hosted",
  string,
  Pruned<UpstreamDocument | HostedDocument>,
])[] {
  return [
    ...upstreamsOf(document).map(
      ([name, upstream]) => ["upstreams", name, upstream] as const,
    ),
    ...hostedOf(document).map(
      ([name, hosted]) => ["hosted", name, hosted] as const,
    ),
  ];
}

function* checkClientCertificate(
  name: string,
  { tls }: Pruned<UpstreamDocument>,
  isFaulty: (path: KeyPath) => boolean,
): Generator<PlacedFault> {
  const place = ["upstreams", name, "tls"];
  for (const [one, other] of [
    ["certificateFile", "keyFile"],
    ["keyFile", "certificateFile"],
  ] as const) {
    if (!tls?.[one] || tls[other] || isFaulty([...place, other])) continue;
    yield {
      path: [...place, one],
      seen: `${one} without ${other}`,
      expected: "both or neither",
    };
  }
}

function* checkCredentials(
  name: string,
  upstream: Pruned<UpstreamDocument>,
  isFaulty: (path: KeyPath) => boolean,
): Generator<PlacedFault> {
  const credentials = credentialsOf(name, upstream);
  if (credentials.length === 0) return;
  const place = ["upstreams", name];
  const access = [...place, "access"];
  if (upstream.access === undefined && !isFaulty(access)) {
    yield {
      path: access,
      seen: "no value beside credentials",
      expected: "access: shared",
      fix: "with it every client of the mirror may read what these credentials fetched",
    };
  }
  for (const { path, credential } of credentials) {
    const { username, password, passwordFile } = credential;
    const forms = [
      ...(["dockerConfigFile", "helper"] as const).filter(
        (key) => credential[key] !== undefined || isFaulty([...path, key]),
      ),
      ...(["username", "password", "passwordFile"] as const).filter(
        (key) => credential[key] !== undefined || isFaulty([...path, key]),
      ),
    ];
    if (forms[0] === "dockerConfigFile" || forms[0] === "helper") {
      if (forms.length > 1) {
        yield {
          path,
          seen: `${forms.join(" and ")} together`,
          expected: `${forms[0]} alone`,
          fix: "write several credentials as a list",
        };
      }
      continue;
    }
    if (username === undefined && !isFaulty([...path, "username"])) {
      yield {
        path: [...path, "username"],
        seen: "no value",
        expected: "a user name without a colon",
      };
    }
    if (password !== undefined && passwordFile !== undefined) {
      yield {
        path,
        seen: "both password and passwordFile",
        expected: "exactly one of them",
      };
    } else if (
      password === undefined &&
      passwordFile === undefined &&
      !isFaulty([...path, "password"]) &&
      !isFaulty([...path, "passwordFile"])
    ) {
      yield {
        path,
        seen: "neither password nor passwordFile",
        expected: "exactly one of them",
      };
    }
  }
  for (const [index, endpoint] of (upstream.endpoints ?? []).entries()) {
    if (endpoint?.startsWith("http:") && !isLoopbackUrl(endpoint)) {
      yield {
        path: [...place, "endpoints", index],
        seen: `${endpoint} beside credentials, which would send the password in clear text`,
        expected: "https",
        fix: "name a private authority in tls.caFile",
      };
    }
  }
}
