/** Why keys of Distribution have no translation, by the beginning of their names; the longest applies. */
const REASONS: Readonly<Record<string, string>> = {
  log: "only log.level and log.formatter have a counterpart",
  "log.accesslog": "every request is logged, see log.level",
  "log.hooks": "Prometheus alerts replace mails, see deploy/",
  storage: "only the filesystem driver has a folder to take over",
  "storage.cache": "not needed: what is stored is in an index",
  "storage.redirect": "the mirror always sends the bytes itself",
  "storage.tag": "not needed: tags are rows of an index",
  "storage.filesystem.maxthreads": "not needed, see limits",
  "storage.inmemory": "there is no storage in memory",
  "storage.maintenance.uploadpurging": "only age is a setting, uploadExpiry",
  auth: "use access.htpasswdFile or access.tokenServer",
  "auth.silly": "it let every client with a header in",
  "auth.htpasswd.realm": "the realm is not a setting",
  "auth.token.autoredirect": "the realm of a token server is always absolute",
  "auth.token.signingalgorithms":
    "RS, PS, ES and EdDSA are accepted, never a shared secret",
  middleware: "there are no plug-ins",
  reporting: "use /metrics and the log",
  "http.net": "only TCP is listened on",
  "http.prefix": "put it into the path of the proxy in front of the mirror",
  "http.host": "answers contain paths without a host",
  "http.relativeurls": "answers always contain paths without a host",
  "http.secret": "not needed: uploads are rows of an index",
  "http.draintimeout": "running requests end within 30 s at a stop",
  "http.headers": "the headers of answers are not a setting",
  "http.http2": "not a setting",
  "http.h2c": "HTTP/2 without TLS is not supported",
  "http.tls.letsencrypt":
    "use an ACME client that writes tls.certificateFile, which is read again when it changes",
  "http.tls.minimumtls": "TLS 1.2 and 1.3 are accepted",
  "http.tls.ciphersuites": "not a setting",
  "http.tls.clientauth":
    "with clientCaFile each client needs a certificate, or with access one of both",
  "http.debug": "/metrics, /healthz and /readyz are on operator.listen",
  "notifications.events": "events of referrers are not a setting",
  redis: "not needed: one process has one storage root",
  health: "/healthz and /readyz check storage and index",
  "proxy.ttl":
    "what was not pulled for eviction.maxIdle is evicted, and space by eviction.maxSize",
  "proxy.exec": "use upstreams.<name>.credentials with a helper",
  compatibility: "manifests of schema 1 are not supported",
  validation: "every manifest is checked: what it names must be stored",
  policy: "use access.rules",
  catalog: "pages of the catalog have at most 1 000 names",
};

/** Returns the reason why a key was left out. */
export function reasonOf(key: string): string {
  for (let name = key; name !== "";) {
    const reason = REASONS[name];
    if (reason !== undefined) return reason;
    const end = name.lastIndexOf(".");
    name = end === -1 ? "" : name.slice(0, end);
  }
  return "unknown key";
}
