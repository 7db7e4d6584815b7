import assert from "node:assert/strict";
import { test } from "node:test";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";

const DURATION = "a duration such as 30s, 10m, 24h, 90d or forever";
const LISTEN = 'HOST:PORT, such as 127.0.0.1:5000 or, in quotes, "[::1]:5000"';
const NAME =
  "a registry's name in lower case, such as quay.io or registry.corp:5000, and not v2";
const PATTERN =
  'a pattern over repository:tag with * and **, such as "**:latest"';

interface Case {
  readonly name: string;
  readonly yaml: string;
  /** The faults without the file's name, which starts each line. */
  readonly faults: readonly string[];
}

/** An entry of one upstream. */
function upstream(keys: string): string {
  return `upstreams: { quay.io: { ${keys} } }\n`;
}

const SCHEMA_FAULTS: readonly Case[] = [
  {
    name: "a login in a place for a host, without its password",
    yaml: [
      "upstreams:",
      "  quay.io:",
      "    endpoints: https://acme:canary@quay.io",
      "    aliases: ['https://acme:canary/@@quay.io']",
      "    tokenRealms: ['acme:canary@quay.io']",
      "  https://acme:canary@quay.io: {}",
      "  ghcr.io: https://acme:canary@ghcr.io",
      "",
    ].join("\n"),
    faults: [
      ':3: upstreams.quay.io.endpoints: got "https://[redacted]@quay.io"; expected a list of one to sixteen URLs, each once',
      ':4: upstreams.quay.io.aliases[0]: got "https://[redacted]@quay.io"; expected a name in lower case, such as hub or registry.corp:5000, and not v2',
      ':5: upstreams.quay.io.tokenRealms[0]: got "[redacted]@quay.io"; expected a host in lower case, such as auth.corp',
      `:6: upstreams.https://[redacted]@quay.io: got an invalid name; expected ${NAME}`,
      ':7: upstreams.ghcr.io: got "https://[redacted]@ghcr.io"; expected a mapping',
    ],
  },
  {
    name: "an unknown key, with the nearest known one",
    yaml: "storge: {}\nlog:\n  Level: info\n  colour: true\n",
    faults: [
      ":1: storge: got an unknown key; expected a known key; did you mean storage?",
      ":3: log.Level: got an unknown key; expected a known key; did you mean level?",
      ":4: log.colour: got an unknown key; expected one of level, format",
    ],
  },
  {
    name: "invalid sizes, shares and patterns of the eviction",
    yaml: 'eviction:\n  maxSize: 101%\n  minFree: 5 GB\n  maxIdle: 5m\n  keep: ["alpine", "docker.io/library/alpine:*", "Docker.io/a"]\n',
    faults: [
      ':2: eviction.maxSize: got "101%"; expected a size with a unit such as 200GiB, a share of the file system such as 80%, or 0',
      ':3: eviction.minFree: got "5 GB"; expected a size with a unit such as 10GiB, a share of the file system such as 5%, or 0',
      ':4: eviction.maxIdle: got "5m"; expected a duration with a unit, such as 90d, or forever',
      ':5: eviction.keep[0]: got "alpine"; expected a pattern such as docker.io/library/alpine:* or quay.io/team/**',
      ':5: eviction.keep[2]: got "Docker.io/a"; expected a pattern such as docker.io/library/alpine:* or quay.io/team/**',
    ],
  },
  {
    name: "sizes without a unit",
    yaml: `eviction:\n  maxSize: 10\n  minFree: "10"\n${upstream("bandwidth: 10000000")}`,
    faults: [
      ":2: eviction.maxSize: got 10; expected a size with a unit such as 200GiB, a share of the file system such as 80%, or 0",
      ':3: eviction.minFree: got "10"; expected a size with a unit such as 10GiB, a share of the file system such as 5%, or 0',
      ":4: upstreams.quay.io.bandwidth: got 10000000; expected a size per second such as 10MiB, or 0",
    ],
  },
  {
    name: "an invalid share of the background scrub",
    yaml: "scrub:\n  background: 0%\n  onRead: forever\n",
    faults: [
      ':2: scrub.background: got "0%"; expected a share such as 1%, or off',
      ':3: scrub.onRead: got "forever"; expected a duration with a unit, such as 7d, or off',
    ],
  },
  {
    name: "keys of features that do not exist",
    yaml: "acme: { email: a }\nhosted: { local: { signatures: [] } }\nupstreams:\n  quay.io:\n    quota: 0\n    credentials: { username: a, password: b, tokenFile: c }\n    access: shared\n",
    faults: [
      ":1: acme: got an unknown key; expected one of listen, tls, operator, storage, eviction, scrub, offline, upstreams, hosted, notifications, warm, access, trustedProxies, limits, audit, log",
      ":2: hosted.local.signatures: got an unknown key; expected one of default, hostnames, anonymousPush, immutableTags, quota, maxManifestSize, uploadExpiry, retention",
      ":5: upstreams.quay.io.quota: got an unknown key; expected one of default, endpoints, aliases, hostnames, libraryPrefix, credentials, access, freshness, allow, deny, redirectHosts, tokenRealms, concurrency, bandwidth, connectTimeout, headersTimeout, idleTimeout, proxy, tls",
      ":6: upstreams.quay.io.credentials.tokenFile: got an unknown key; expected one of username, password, passwordFile, dockerConfigFile, helper",
    ],
  },
  {
    name: "unknown keys that would break a line or a terminal",
    yaml: '"a b": 1\n"a\\nb": 1\n"\\e[31m": 1\n__proto__: { offline: true }\n',
    faults: [
      ':1: "a b": got an unknown key; expected one of listen, tls, operator, storage, eviction, scrub, offline, upstreams, hosted, notifications, warm, access, trustedProxies, limits, audit, log',
      ':2: "a\\nb": got an unknown key; expected one of listen, tls, operator, storage, eviction, scrub, offline, upstreams, hosted, notifications, warm, access, trustedProxies, limits, audit, log',
      ':3: "\\u001b[31m": got an unknown key; expected one of listen, tls, operator, storage, eviction, scrub, offline, upstreams, hosted, notifications, warm, access, trustedProxies, limits, audit, log',
      ":4: __proto__: got an unknown key; expected one of listen, tls, operator, storage, eviction, scrub, offline, upstreams, hosted, notifications, warm, access, trustedProxies, limits, audit, log",
    ],
  },
  {
    name: "values of another type",
    yaml: 'listen: 5000\noperator: off\nstorage: [./data]\noffline: "true"\nlog: { level: 1, format: true }\nupstreams: quay.io\n',
    faults: [
      `:1: listen: got 5000; expected ${LISTEN}, or a list of these`,
      ':2: operator: got "off"; expected a mapping',
      ":3: storage: got a list; expected a mapping",
      ':4: offline: got "true"; expected true or false',
      ":5: log.level: got 1; expected one of trace, debug, info, warn, error, fatal",
      ":5: log.format: got true; expected one of json, pretty",
      ':6: upstreams: got "quay.io"; expected a mapping of registries\' names',
    ],
  },
  {
    name: "keys without a value",
    yaml: "listen:\noperator: { listen: }\nstorage:\n  root: ~\nupstreams:\n",
    faults: [
      `:1: listen: got no value; expected ${LISTEN}, or a list of these`,
      ':2: operator.listen: got no value; expected HOST:PORT, such as 127.0.0.1:5001 or, in quotes, "[::1]:5001", or false',
      ":4: storage.root: got no value; expected the path of a folder",
      ":5: upstreams: got no value; expected a mapping of registries' names",
    ],
  },
  {
    name: "invalid listen addresses",
    yaml: 'listen:\n  - localhost\n  - ":5000"\n  - 127.0.0.1:65536\n  - "::1:5000"\n  - "[127.0.0.1]:5000"\n  - 300.0.0.1:5000\n  - http://127.0.0.1:5000\noperator: { listen: true }\n',
    faults: [
      `:2: listen[0]: got "localhost"; expected ${LISTEN}`,
      `:3: listen[1]: got ":5000"; expected ${LISTEN}`,
      `:4: listen[2]: got "127.0.0.1:65536"; expected ${LISTEN}`,
      `:5: listen[3]: got "::1:5000"; expected ${LISTEN}`,
      `:6: listen[4]: got "[127.0.0.1]:5000"; expected ${LISTEN}`,
      `:7: listen[5]: got "300.0.0.1:5000"; expected ${LISTEN}`,
      `:8: listen[6]: got "http://127.0.0.1:5000"; expected ${LISTEN}`,
      ':9: operator.listen: got true; expected HOST:PORT, such as 127.0.0.1:5001 or, in quotes, "[::1]:5001", or false',
    ],
  },
  {
    name: "empty lists and texts that must not be empty",
    yaml: `listen: []\nstorage: { root: "" }\n${upstream("endpoints: []")}`,
    faults: [
      `:1: listen: got an empty list; expected ${LISTEN}, or a list of these`,
      ':2: storage.root: got ""; expected the path of a folder',
      ":3: upstreams.quay.io.endpoints: got an empty list; expected a list of one to sixteen URLs, each once",
    ],
  },
  {
    name: "names that are not a registry's",
    yaml: "upstreams:\n  Quay.io: {}\n  quay.io/team: {}\n  https://quay.io: {}\n  v2: {}\n  a..b: {}\n  ghcr.io: { aliases: [V2, v2, a b] }\n",
    faults: [
      ":2: upstreams.Quay.io: got an invalid name; expected lower case; write quay.io",
      `:3: upstreams.quay.io/team: got an invalid name; expected ${NAME}`,
      `:4: upstreams.https://quay.io: got an invalid name; expected ${NAME}`,
      `:5: upstreams.v2: got an invalid name; expected ${NAME}`,
      `:6: upstreams.a..b: got an invalid name; expected ${NAME}`,
      ':7: upstreams.ghcr.io.aliases[0]: got "V2"; expected lower case; write v2',
      ':7: upstreams.ghcr.io.aliases[1]: got "v2"; expected a name in lower case, such as hub or registry.corp:5000, and not v2',
      ':7: upstreams.ghcr.io.aliases[2]: got "a b"; expected a name in lower case, such as hub or registry.corp:5000, and not v2',
    ],
  },
  {
    name: "endpoints that are not a base URL of a registry",
    yaml: `upstreams:
  quay.io:
    endpoints:
      - quay.io
      - ftp://quay.io
      - https://user:hunter2@quay.io
      - https://quay.io/?token=hunter2
      - https://quay.io/#hunter2
      - https://quay.io/v2/
      - https://quay.io/a/../b c
      - https://quay.io/Team
      - https://quay.io:0
      - 443
`,
    faults: [
      ':4: upstreams.quay.io.endpoints[0]: got "quay.io"; expected an absolute URL; write https://quay.io',
      ':5: upstreams.quay.io.endpoints[1]: got "ftp://quay.io"; expected an absolute http or https URL, such as https://quay.io',
      ":6: upstreams.quay.io.endpoints[2]: got a URL with a user name; expected a URL without one; move user name and password to credentials",
      ":7: upstreams.quay.io.endpoints[3]: got a URL with a query or a fragment; expected a URL without one",
      ":8: upstreams.quay.io.endpoints[4]: got a URL with a query or a fragment; expected a URL without one",
      ':9: upstreams.quay.io.endpoints[5]: got "https://quay.io/v2/"; expected the URL without /v2; write https://quay.io',
      ':10: upstreams.quay.io.endpoints[6]: got "https://quay.io/a/../b c"; expected an absolute http or https URL, such as https://quay.io',
      ':11: upstreams.quay.io.endpoints[7]: got "https://quay.io/Team"; expected an absolute http or https URL, such as https://quay.io',
      ':12: upstreams.quay.io.endpoints[8]: got "https://quay.io:0"; expected an absolute http or https URL, such as https://quay.io',
      ":13: upstreams.quay.io.endpoints[9]: got 443; expected an absolute http or https URL, such as https://quay.io",
    ],
  },
  {
    name: "invalid hosts",
    yaml: upstream(
      'hostnames: [Hub.corp, "http://hub.corp"], tokenRealms: [auth.corp/token, "*.corp"]',
    ),
    faults: [
      ':1: upstreams.quay.io.hostnames[0]: got "Hub.corp"; expected lower case; write hub.corp',
      ':1: upstreams.quay.io.hostnames[1]: got "http://hub.corp"; expected a host in lower case, such as hub.mirror.internal',
      ':1: upstreams.quay.io.tokenRealms[0]: got "auth.corp/token"; expected a host in lower case, such as auth.corp',
      ':1: upstreams.quay.io.tokenRealms[1]: got "*.corp"; expected a host in lower case, such as auth.corp',
    ],
  },
  {
    name: "the same item twice in a list",
    yaml: `listen: ["[::1]:5000", "[::1]:5000"]\n${upstream("aliases: [a, b, a]")}`,
    faults: [
      `:1: listen[1]: got "[::1]:5000" twice; expected each item once`,
      ':2: upstreams.quay.io.aliases[2]: got "a" twice; expected each item once',
    ],
  },
  {
    name: "durations without a unit, out of bounds, or invalid",
    yaml: upstream(
      "connectTimeout: 5, headersTimeout: 19s, idleTimeout: forever, freshness: { tagTtl: 1w, staleIfError: -1s, staleWhileRevalidate: 0, notFoundTtl: 25h }",
    ),
    faults: [
      `:1: upstreams.quay.io.freshness.tagTtl: got "1w"; expected ${DURATION}`,
      `:1: upstreams.quay.io.freshness.staleIfError: got "-1s"; expected ${DURATION}`,
      `:1: upstreams.quay.io.freshness.staleWhileRevalidate: got 0; expected ${DURATION}`,
      ':1: upstreams.quay.io.freshness.notFoundTtl: got "25h"; expected a duration of at most 24h, such as 30s',
      ":1: upstreams.quay.io.connectTimeout: got 5; expected a duration above 0s and at most 18s, such as 5s",
      ':1: upstreams.quay.io.headersTimeout: got "19s"; expected a duration above 0s and at most 18s, such as 10s',
      ':1: upstreams.quay.io.idleTimeout: got "forever"; expected a duration above 0s and at most 1h, such as 15s',
    ],
  },
  {
    name: "time-outs of zero",
    yaml: upstream("connectTimeout: 0s, headersTimeout: 0ms, idleTimeout: 0h"),
    faults: [
      ':1: upstreams.quay.io.connectTimeout: got "0s"; expected a duration above 0s and at most 18s, such as 5s',
      ':1: upstreams.quay.io.headersTimeout: got "0ms"; expected a duration above 0s and at most 18s, such as 10s',
      ':1: upstreams.quay.io.idleTimeout: got "0h"; expected a duration above 0s and at most 1h, such as 15s',
    ],
  },
  {
    name: "numbers out of bounds",
    yaml: "upstreams:\n  a.io: { concurrency: -1 }\n  b.io: { concurrency: 1025 }\n  c.io: { concurrency: 1.5 }\n  d.io: { concurrency: .inf }\n  e.io: { concurrency: '32' }\n",
    faults: [
      ":2: upstreams.a.io.concurrency: got -1; expected a whole number from 0 to 1024",
      ":3: upstreams.b.io.concurrency: got 1025; expected a whole number from 0 to 1024",
      ":4: upstreams.c.io.concurrency: got 1.5; expected a whole number from 0 to 1024",
      ":5: upstreams.d.io.concurrency: got Infinity; expected a whole number from 0 to 1024",
      ':6: upstreams.e.io.concurrency: got "32"; expected a whole number from 0 to 1024',
    ],
  },
  {
    name: "rules that match nothing or miss a part",
    yaml: `upstreams:
  quay.io:
    freshness:
      rules:
        - { match: "", ttl: 1m }
        - { match: "a:b:c", ttl: 1m }
        - { match: "Team/*", ttl: 1m }
        - { match: "/^a/", ttl: soon }
        - { ttl: 1m }
        - { match: a }
        - latest
`,
    faults: [
      `:5: upstreams.quay.io.freshness.rules[0].match: got ""; expected ${PATTERN}`,
      `:6: upstreams.quay.io.freshness.rules[1].match: got "a:b:c"; expected ${PATTERN}`,
      `:7: upstreams.quay.io.freshness.rules[2].match: got "Team/*"; expected ${PATTERN}`,
      `:8: upstreams.quay.io.freshness.rules[3].match: got "/^a/"; expected ${PATTERN}`,
      `:8: upstreams.quay.io.freshness.rules[3].ttl: got "soon"; expected ${DURATION}`,
      `:9: upstreams.quay.io.freshness.rules[4].match: got no value; expected ${PATTERN}`,
      `:10: upstreams.quay.io.freshness.rules[5].ttl: got no value; expected ${DURATION}`,
      ':11: upstreams.quay.io.freshness.rules[6]: got "latest"; expected a mapping of match and ttl',
    ],
  },
  {
    name: "an access value that is not available yet, once",
    yaml: upstream("access: caller, credentials: { username: a, password: b }"),
    faults: [
      ':1: upstreams.quay.io.access: got "caller"; expected shared; the value caller is not available yet',
    ],
  },
];

const CROSS_FAULTS: readonly Case[] = [
  {
    name: "credentials without access written out",
    yaml: "upstreams:\n  a.io:\n    credentials: { username: a, password: b }\n  b.io:\n    credentials: []\n",
    faults: [
      ":2: upstreams.a.io.access: got no value beside credentials; expected access: shared; with it every client of the mirror may read what these credentials fetched",
    ],
  },
  {
    name: "numbers and booleans in place of texts, without secrets",
    yaml: upstream(
      "access: shared, credentials: [{ username: 4711, password: 4711 }, { username: true, password: '' }, hunter2]",
    ),
    faults: [
      ":1: upstreams.quay.io.credentials[0].username: got a number; expected a user name without a colon, in quotes",
      ":1: upstreams.quay.io.credentials[0].password: got a number; expected a password that is not empty, in quotes",
      ":1: upstreams.quay.io.credentials[1].username: got true or false; expected a user name without a colon, in quotes",
      ":1: upstreams.quay.io.credentials[1].password: got an empty text; expected a password that is not empty",
      ":1: upstreams.quay.io.credentials[2]: got a text; expected a mapping of username and password or passwordFile, of dockerConfigFile, or of helper",
    ],
  },
  {
    name: "credentials in one text, without the text",
    yaml: upstream("credentials: 'a:hunter2'"),
    faults: [
      ":1: upstreams.quay.io.credentials: got a text; expected a mapping of username and password or passwordFile, of dockerConfigFile, or of helper; or a list of these",
    ],
  },
  {
    name: "credentials with two passwords, none, or no user",
    yaml: `upstreams:
  quay.io:
    access: shared
    credentials:
      - { username: both, password: a, passwordFile: b }
      - { username: none }
      - { password: a }
      - { username: "a:hunter2", password: a }
`,
    faults: [
      ":5: upstreams.quay.io.credentials[0]: got both password and passwordFile; expected exactly one of them",
      ":5: upstreams.quay.io.credentials[0].passwordFile: got FOLDER/b (no such file); expected a readable file no larger than 64 KiB",
      ":6: upstreams.quay.io.credentials[1]: got neither password nor passwordFile; expected exactly one of them",
      ":7: upstreams.quay.io.credentials[2].username: got no value; expected a user name without a colon",
      ":8: upstreams.quay.io.credentials[3].username: got a text; expected a user name without a colon",
    ],
  },
  {
    name: "credentials of several forms in one, and invalid forms",
    yaml: `upstreams:
  quay.io:
    access: shared
    credentials:
      - { helper: a, username: b, password: c }
      - { helper: a, dockerConfigFile: nowhere }
      - { helper: "docker-credential-x get" }
      - { helper: "" }
      - { dockerConfigFile: "" }
      - { dockerConfigFile: 1 }
      - {}
  gcr.io:
    credentials: { helper: docker-credential-gcr }
`,
    faults: [
      ":5: upstreams.quay.io.credentials[0]: got helper and username and password together; expected helper alone; write several credentials as a list",
      ":6: upstreams.quay.io.credentials[1]: got dockerConfigFile and helper together; expected dockerConfigFile alone; write several credentials as a list",
      ":6: upstreams.quay.io.credentials[1].dockerConfigFile: got FOLDER/nowhere (no such file); expected a readable Docker config.json no larger than 1 MiB",
      ':7: upstreams.quay.io.credentials[2].helper: got "docker-credential-x get"; expected a program\'s name or path without blanks, such as docker-credential-ecr-login',
      `:8: upstreams.quay.io.credentials[3].helper: got ""; expected a program's name or path without blanks, such as docker-credential-ecr-login`,
      ':9: upstreams.quay.io.credentials[4].dockerConfigFile: got ""; expected the path of a file',
      ":10: upstreams.quay.io.credentials[5].dockerConfigFile: got 1; expected the path of a file, in quotes",
      ":11: upstreams.quay.io.credentials[6].username: got no value; expected a user name without a colon",
      ":11: upstreams.quay.io.credentials[6]: got neither password nor passwordFile; expected exactly one of them",
      ":12: upstreams.gcr.io.access: got no value beside credentials; expected access: shared; with it every client of the mirror may read what these credentials fetched",
    ],
  },
  {
    name: "a password over plain HTTP, except on loopback",
    yaml: `upstreams:
  quay.io:
    endpoints: [http://registry.corp, "http://10.0.0.1:5000", http://127.0.0.1.corp]
    access: shared
    credentials: { username: a, password: b }
  ghcr.io:
    endpoints: [http://localhost:5000, http://127.1.2.3, "http://[::1]:5000", http://a.localhost]
    access: shared
    credentials: { username: a, password: b }
  gcr.io:
    endpoints: [http://registry.corp]
`,
    faults: [0, 1, 2].map(
      (index) =>
        `:3: upstreams.quay.io.endpoints[${index}]: got ${["http://registry.corp", "http://10.0.0.1:5000", "http://127.0.0.1.corp"][index]} beside credentials, which would send the password in clear text; expected https; name a private authority in tls.caFile`,
    ),
  },
  {
    name: "one name for two upstreams",
    yaml: `upstreams:
  docker.io:
  quay.io:
    aliases: [ghcr.io, quay.io, q]
  ghcr.io:
    aliases: [q, index.docker.io]
  registry-1.docker.io:
`,
    faults: [
      ":4: upstreams.quay.io.aliases[0]: got ghcr.io, the name of upstreams.ghcr.io; expected a name that is used once",
      ":4: upstreams.quay.io.aliases[1]: got quay.io, the name of upstreams.quay.io; expected a name that is used once",
      ":6: upstreams.ghcr.io.aliases[0]: got q, already an alias of upstreams.quay.io; expected a name that is used once",
      ":6: upstreams.ghcr.io.aliases[1]: got index.docker.io, already an alias of docker.io unless that has aliases: []; expected a name that is used once",
      ":7: upstreams.registry-1.docker.io: got registry-1.docker.io, already an alias of docker.io unless that has aliases: []; expected a name that is used once",
    ],
  },
  {
    name: "one hostname for two upstreams",
    yaml: "upstreams:\n  quay.io: { hostnames: [m.corp] }\n  ghcr.io: { hostnames: [m.corp] }\n",
    faults: [
      ":3: upstreams.ghcr.io.hostnames[0]: got m.corp, already a hostname of upstreams.quay.io; expected a hostname that is used once",
    ],
  },
  {
    name: "two default upstreams",
    yaml: "upstreams:\n  quay.io: { default: true }\n  ghcr.io: { default: false }\n  gcr.io: { default: true }\n",
    faults: [
      ":4: upstreams.gcr.io.default: got true, as at upstreams.quay.io; expected at most one default registry",
    ],
  },
  {
    name: "two listeners on one address",
    yaml: 'listen: [127.0.0.1:80, "[::]:443", 127.0.0.1:443, localhost:0, 127.0.0.1:0]\noperator: { listen: 0.0.0.0:80 }\n',
    faults: [
      ":1: listen[2]: got 127.0.0.1:443, an address of another listener; expected a port that no other listener uses",
      ":2: operator.listen: got 0.0.0.0:80, an address of another listener; expected a port that no other listener uses",
    ],
  },
  {
    name: "faults of every kind together",
    yaml: `loglevel: info
upstreams:
  quay.io:
    credentials: { username: a, passwordFile: nowhere }
    connectTimeout: 1h
    tls: { caFile: nowhere.crt }
`,
    faults: [
      ":1: loglevel: got an unknown key; expected one of listen, tls, operator, storage, eviction, scrub, offline, upstreams, hosted, notifications, warm, access, trustedProxies, limits, audit, log",
      ":3: upstreams.quay.io.access: got no value beside credentials; expected access: shared; with it every client of the mirror may read what these credentials fetched",
      ":4: upstreams.quay.io.credentials.passwordFile: got FOLDER/nowhere (no such file); expected a readable file no larger than 64 KiB",
      ':5: upstreams.quay.io.connectTimeout: got "1h"; expected a duration above 0s and at most 18s, such as 5s',
      ":6: upstreams.quay.io.tls.caFile: got FOLDER/nowhere.crt (no such file); expected a readable file of PEM certificates",
    ],
  },
];

const SYNTAX_FAULTS: readonly Case[] = [
  {
    name: "a tab as indentation",
    yaml: "log:\n\tlevel: info\n",
    faults: [":2: got a tab as indentation; expected spaces"],
  },
  {
    name: "a key twice, also below others",
    yaml: "log: { level: info }\nupstreams:\n  quay.io:\n  ghcr.io: { default: true,\n    default: false }\n  quay.io:\nlog: {}\n",
    faults: [
      ":5: upstreams.ghcr.io.default: got the same key as in line 4; expected each key once",
      ":6: upstreams.quay.io: got the same key as in line 3; expected each key once",
      ":7: log: got the same key as in line 1; expected each key once",
    ],
  },
  {
    name: "an IPv6 address without quotes",
    yaml: "listen: [::1]:5000\n",
    faults: [
      ':1: got an unexpected character; expected `key: value`; quote a text with brackets, commas or colons, such as "[::1]:5000"',
    ],
  },
  {
    name: "a pattern without quotes, without its text",
    yaml: upstream("freshness: { rules: [{ match: **:latest, ttl: 1m }] }"),
    faults: [
      ":1: upstreams.quay.io.freshness.rules[0].match: got an alias without its anchor; expected the *NAME of an anchor above; quote a text with * ! or a colon",
    ],
  },
  {
    name: "a password without quotes, without its text",
    yaml: "upstreams:\n  quay.io:\n    credentials:\n      - { username: a, password: *hunter2 }\n      - { username: a, password: &hunter2 }\n",
    faults: [
      ":4: upstreams.quay.io.credentials[0].password: got an alias without its anchor; expected the *NAME of an anchor above; quote a text with * ! or a colon",
    ],
  },
  {
    name: "tags, without their text",
    yaml: "log: !hunter2 { level: info }\nlisten: !!binary aGk=\n",
    faults: [
      ":1: got a tag; expected a value without tags; quote a text with * ! or a colon",
      ":2: got a tag; expected a value without tags; quote a text with * ! or a colon",
    ],
  },
  {
    name: "another version of YAML",
    yaml: "%YAML 1.1\n---\noffline: yes\n",
    faults: [":1: got YAML 1.1; expected YAML 1.2"],
  },
  {
    name: "a second document",
    yaml: "offline: true\n---\noffline: false\n",
    faults: [":2: got a second document; expected one document per file"],
  },
  {
    name: "quotes that are not closed",
    yaml: "listen: 'hunter2\n",
    faults: [
      ":2: got an open quote or bracket, or a key without a colon; expected closed quotes and brackets, and a colon after each key",
    ],
  },
  {
    name: "a list or a text in place of keys",
    yaml: "\n- listen\n",
    faults: [":2: got a list or a text; expected a mapping of keys"],
  },
  {
    name: "an anchor that holds itself",
    yaml: "log: &a { level: *a }\n",
    faults: [
      ":1: log.level: got an alias without its anchor; expected the *NAME of an anchor above; quote a text with * ! or a colon",
    ],
  },
  {
    name: "an alias bomb",
    yaml: `a: &a0 [${"x,".repeat(9)}]\n${Array.from({ length: 9 }, (_, i) => `${i}: &a${i + 1} [${`*a${i},`.repeat(9)}]\n`).join("")}`,
    faults: [
      ":6: 4[0]: got too many values through aliases; expected at most 100000",
    ],
  },
  {
    name: "a nest deeper than any configuration",
    yaml: `a: ${"[".repeat(100)}${"]".repeat(100)}\n`,
    faults: [
      `:1: a${"[0]".repeat(32)}: got deeper nesting than any key needs; expected at most 32 levels`,
    ],
  },
];

for (const { name, yaml, faults } of [...SCHEMA_FAULTS, ...CROSS_FAULTS]) {
  void test(`reports ${name}`, async (t) => {
    const folder = await makeConfigFolder(t);
    const printed = printedFaults(await folder.loadText(yaml));
    assert.deepEqual(
      printed,
      faults.map((fault) => `c.yaml${fault}`.replace("FOLDER", folder.path)),
    );
    assert.ok(!printed.join("\n").includes("hunter2"));
  });
}

for (const { name, yaml, faults } of SYNTAX_FAULTS) {
  void test(`reports YAML with ${name}`, async (t) => {
    const folder = await makeConfigFolder(t);
    const printed = printedFaults(await folder.loadText(yaml));
    assert.deepEqual(
      printed.slice(0, faults.length),
      faults.map((fault) => `c.yaml${fault}`),
    );
    assert.ok(!printed.join("\n").includes("hunter2"));
  });
}
