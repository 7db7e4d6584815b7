import { join } from "node:path";
import { formatDuration, parseDuration } from "../../../config/schema/units.ts";
import { reasonOf } from "./left-out.ts";
import { SourceKeys } from "./source-keys.ts";

/** A configuration of Entrepot, and what the other one says that it does not. */
export interface TranslatedConfig {
  readonly settings: Readonly<Record<string, unknown>>;
  /** Each one line. */
  readonly notes: readonly string[];
}

/** The registry that Distribution's own documentation names for Docker Hub. */
const DOCKER_HUB = new Set([
  "docker.io",
  "index.docker.io",
  "registry-1.docker.io",
  "registry.hub.docker.com",
  "hub.docker.com",
]);
const HOSTED_NAME = "local";
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const LOG_LEVELS: Readonly<Record<string, string>> = {
  error: "error",
  warn: "warn",
  info: "info",
  debug: "debug",
};

/** @returns undefined if it is not a configuration of Distribution */
export function translateRegistryDocument(
  document: unknown,
): TranslatedConfig | undefined {
  const source = new SourceKeys(document);
  if (source.text("version") === undefined || !source.has("storage")) {
    return undefined;
  }
  const notes: string[] = [];
  const parts = { source, notes };
  const upstreams = readProxy(parts);
  const access = readAccess(parts);
  const settings = withoutAbsent({
    ...readHttp(parts),
    storage: readStorage(parts, upstreams && Object.keys(upstreams)[0]),
    upstreams: upstreams ?? {},
    hosted:
      upstreams === undefined
        ? { [HOSTED_NAME]: readHosted(parts, access !== undefined) }
        : {},
    access: withRules(parts, access, upstreams !== undefined),
    notifications:
      upstreams === undefined ? readNotifications(parts) : undefined,
    log: readLog(parts),
  });
  for (const key of source.unread()) notes.push(`${key}: ${reasonOf(key)}`);
  return { settings, notes };
}

interface Parts {
  readonly source: SourceKeys;
  readonly notes: string[];
}

function readHttp({ source, notes }: Parts): Record<string, unknown> {
  const certificateFile = source.text("http.tls.certificate");
  const keyFile = source.text("http.tls.key");
  const [clientCaFile, ...others] = source.texts("http.tls.clientcas");
  if (others.length > 0) {
    notes.push(
      `http.tls.clientcas: only the first file is named; append the certificates of ${others.join(", ")} to it`,
    );
  }
  if (keyFile !== undefined) {
    notes.push(
      "http.tls.key: the file must have mode 0600, or 0640 with a group",
    );
  }
  const debug = source.text("http.debug.addr");
  for (const key of ["enabled", "path"]) {
    source.ignore(`http.debug.prometheus.${key}`);
  }
  return {
    listen: listenOf(source.text("http.addr") ?? ":5000"),
    tls: certificateFile && { certificateFile, keyFile, clientCaFile },
    operator: debug && { listen: listenOf(debug) },
  };
}

/** Go listens on all addresses if the host is absent. */
function listenOf(address: string): string {
  const colonAt = address.lastIndexOf(":");
  if (colonAt === -1) return `${address}:5000`;
  const [host, port] = [address.slice(0, colonAt), address.slice(colonAt)];
  return `${host === "" ? "0.0.0.0" : host}${port}`;
}

function readStorage(
  { source, notes }: Parts,
  upstream: string | undefined,
): Record<string, unknown> | undefined {
  const drivers = source
    .keysOf("storage")
    .filter(
      (key) =>
        !["cache", "delete", "maintenance", "redirect", "tag"].includes(key),
    );
  const root = source.text("storage.filesystem.rootdirectory");
  if (root === undefined && !drivers.includes("filesystem")) return undefined;
  source.ignore("storage.filesystem.rootdirectory");
  const dir = root ?? "/var/lib/registry";
  notes.push(
    `storage.filesystem: the folder of the mirror is on the same file system, so that 'entrepot takeover ${dir} ${upstream === undefined ? `--into ${HOSTED_NAME}` : `--upstream ${upstream}`}' links the blobs; afterwards ${join(dir, "docker")} can be removed`,
  );
  return { root: join(dir, "entrepot") };
}

function readProxy({
  source,
  notes,
}: Parts): Record<string, unknown> | undefined {
  const remote = source.text("proxy.remoteurl");
  if (remote === undefined || remote === "") return undefined;
  const url = URL.parse(remote);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    notes.push("proxy.remoteurl: not an http or https URL");
    return {};
  }
  const username =
    source.text("proxy.username") || decodeURIComponent(url.username);
  const password =
    source.text("proxy.password") || decodeURIComponent(url.password);
  const isHub = DOCKER_HUB.has(url.hostname);
  const path = url.pathname.replace(/\/+$/, "");
  const endpoint = `${url.protocol}//${url.host}${path}`;
  const name = isHub ? "docker.io" : url.host;
  const hasDefaultEndpoint = isHub
    ? url.protocol === "https:" && path === ""
    : endpoint === `https://${name}`;
  notes.push(
    "proxy: tags are asked for again after upstreams.<name>.freshness.tagTtl (10m); 0s asks at each pull, as Distribution does",
  );
  if (username !== "" && password === "") {
    notes.push("proxy.username: it has no password");
  }
  const hasLogin = username !== "" && password !== "";
  if (hasLogin) {
    notes.push(
      "proxy.password: this file must have mode 0600, or use passwordFile; clients may pull what the account may",
    );
  }
  return {
    [name]: withoutAbsent({
      default: true,
      endpoints: hasDefaultEndpoint ? undefined : [endpoint],
      credentials: hasLogin ? { username, password } : undefined,
      access: hasLogin ? "shared" : undefined,
    }),
  };
}

function readHosted(
  { source, notes }: Parts,
  hasAccess: boolean,
): Record<string, unknown> {
  const isReadOnly = source.isTrue("storage.maintenance.readonly.enabled");
  if (!hasAccess && !isReadOnly) {
    notes.push(
      `hosted.${HOSTED_NAME}.anonymousPush: every client could push; none, loopback or access are safer`,
    );
  }
  const age = source.text("storage.maintenance.uploadpurging.age");
  const ageMs = age === undefined ? undefined : parseGoDuration(age);
  return withoutAbsent({
    default: true,
    anonymousPush: hasAccess ? undefined : isReadOnly ? "none" : "anywhere",
    uploadExpiry:
      ageMs === undefined
        ? "7d"
        : formatDuration(Math.min(90 * DAY_MS, Math.max(MINUTE_MS, ageMs))),
  });
}

function readAccess({
  source,
  notes,
}: Parts): Record<string, unknown> | undefined {
  const htpasswdFile = source.text("auth.htpasswd.path");
  if (htpasswdFile !== undefined) {
    notes.push("auth.htpasswd.path: only bcrypt lines are accepted");
    return { htpasswdFile, anonymous: "none" };
  }
  const realm = source.text("auth.token.realm");
  if (realm === undefined) return undefined;
  const certificateFile = source.text("auth.token.rootcertbundle");
  return {
    anonymous: "none",
    tokenServer: withoutAbsent({
      realm,
      service: source.text("auth.token.service"),
      issuer: source.text("auth.token.issuer"),
      certificateFile,
      jwksFile:
        certificateFile === undefined
          ? source.text("auth.token.jwks")
          : undefined,
    }),
  };
}

/** Without rules, users who logged in may push and delete. */
function withRules(
  { source, notes }: Parts,
  access: Record<string, unknown> | undefined,
  isProxy: boolean,
): Record<string, unknown> | undefined {
  const canDelete = source.isTrue("storage.delete.enabled");
  const isReadOnly = source.isTrue("storage.maintenance.readonly.enabled");
  if (access === undefined) {
    if (!canDelete && !isReadOnly && !isProxy) {
      notes.push(
        "storage.delete: without access, clients that may push may also delete",
      );
    }
    return undefined;
  }
  // Tokens name the rights of their clients themselves.
  if (access["tokenServer"] !== undefined) return access;
  if (canDelete && !isReadOnly && !isProxy) return access;
  const actions = isReadOnly || isProxy ? ["pull"] : ["pull", "push"];
  return {
    ...access,
    rules: [{ who: ["*"], repositories: ["**"], actions }],
  };
}

function readNotifications({
  source,
  notes,
}: Parts): readonly unknown[] | undefined {
  const endpoints: unknown[] = [];
  for (let at = 0; at < source.count("notifications.endpoints"); at += 1) {
    const base = `notifications.endpoints.${at}`;
    const name = source.text(`${base}.name`) ?? String(at);
    const url = source.text(`${base}.url`);
    const isDisabled = source.isTrue(`${base}.disabled`);
    const headers = source.keysOf(`${base}.headers`);
    const ignored = new Set(source.texts(`${base}.ignore.actions`));
    for (const key of ["headers", "ignoredmediatypes", "ignore.mediatypes"]) {
      source.ignore(`${base}.${key}`);
    }
    for (const key of ["timeout", "threshold", "backoff"]) {
      source.ignore(`${base}.${key}`);
    }
    if (url === undefined || isDisabled) {
      notes.push(
        `${base}: ${name} is ${isDisabled ? "disabled" : "without a URL"}`,
      );
      continue;
    }
    if (headers.length > 0) {
      notes.push(
        `${base}.headers: write ${headers.join(", ")} into a file with mode 0600, one NAME: VALUE a line, and name it in headersFile`,
      );
    }
    endpoints.push({
      url,
      events: ["push", "pull", "delete", "mount"].filter(
        (event) => !ignored.has(event),
      ),
    });
  }
  return endpoints.length === 0 ? undefined : endpoints;
}

function readLog({
  source,
  notes,
}: Parts): Record<string, unknown> | undefined {
  const level =
    LOG_LEVELS[source.text("log.level") ?? source.text("loglevel") ?? ""];
  source.ignore("loglevel");
  const formatter = source.text("log.formatter");
  if (formatter !== undefined && formatter !== "text" && formatter !== "json") {
    notes.push("log.formatter: json is written instead");
  }
  const log = withoutAbsent({
    level,
    format: formatter === "text" ? "pretty" : undefined,
  });
  return Object.keys(log).length === 0 ? undefined : log;
}

/** Reads a duration as Go writes it, as in `168h` or `1h30m`. */
function parseGoDuration(text: string): number | undefined {
  const parts = text.match(/\d+(?:\.\d+)?(?:ms|s|m|h)/g) ?? [];
  if (parts.length === 0 || parts.join("") !== text) return undefined;
  return parts.reduce((sum, part) => sum + (parseDuration(part) ?? 0), 0);
}

function withoutAbsent(
  fields: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(
      ([, value]) => value !== undefined && value !== "",
    ),
  );
}
