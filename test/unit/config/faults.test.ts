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
  /** Without the file's name, which all begin with. */
  readonly faults: readonly string[];
}

/** An entry of one upstream. */
function upstream(keys: string): string {
  return `upstreams: { quay.io: { ${keys} } }\n`;
}

const SCHEMA_FAULTS: readonly Case[] = [
  {
    name: "a login where none belongs, without its password",
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
      ':3: upstreams.quay.io.endpoints: "https://[redacted]@quay.io"; a list of one to sixteen URLs, each once',
      ':4: upstreams.quay.io.aliases[0]: "https://[redacted]@quay.io"; a name in lower case, such as hub or registry.corp:5000, and not v2',
      ':5: upstreams.quay.io.tokenRealms[0]: "[redacted]@quay.io"; a host in lower case, such as auth.corp',
      `:6: upstreams.https://[redacted]@quay.io: no registry's name; ${NAME}`,
      ':7: upstreams.ghcr.io: "https://[redacted]@ghcr.io"; a mapping',
    ],
  },
  {
    name: "an unknown key, with the nearest known one",
    yaml: "storge: {}\nlog:\n  Level: info\n  colour: true\n",
    faults: [
      ":1: storge: unknown key; did you mean storage?",
      ":3: log.Level: unknown key; did you mean level?",
      ":4: log.colour: unknown key; known here: level, format",
    ],
  },
  {
    name: "sizes, shares and patterns of the eviction that are none",
    yaml: 'eviction:\n  maxSize: 101%\n  minFree: 5 GB\n  maxIdle: 5m\n  keep: ["alpine", "docker.io/library/alpine:*", "Docker.io/a"]\n',
    faults: [
      ':2: eviction.maxSize: "101%"; a size with a unit such as 200GiB, a share of the file system such as 80%, or 0',
      ':3: eviction.minFree: "5 GB"; a size with a unit such as 10GiB, a share of the file system such as 5%, or 0',
      ':4: eviction.maxIdle: "5m"; a duration with a unit, such as 90d, or forever',
      ':5: eviction.keep[0]: "alpine"; a pattern such as docker.io/library/alpine:* or quay.io/team/**',
      ':5: eviction.keep[2]: "Docker.io/a"; a pattern such as docker.io/library/alpine:* or quay.io/team/**',
    ],
  },
  {
    name: "sizes without a unit",
    yaml: `eviction:\n  maxSize: 10\n  minFree: "10"\n${upstream("bandwidth: 10000000")}`,
    faults: [
      ":2: eviction.maxSize: 10; a size with a unit such as 200GiB, a share of the file system such as 80%, or 0",
      ':3: eviction.minFree: "10"; a size with a unit such as 10GiB, a share of the file system such as 5%, or 0',
      ":4: upstreams.quay.io.bandwidth: 10000000; a size per second such as 10MiB, or 0",
    ],
  },
  {
    name: "a share of the background scrub that is none",
    yaml: "scrub:\n  background: 0%\n  onRead: forever\n",
    faults: [
      ':2: scrub.background: "0%"; a share such as 1%, or off',
      ':3: scrub.onRead: "forever"; a duration with a unit, such as 7d, or off',
    ],
  },
  {
    name: "keys that nothing honours",
    yaml: "acme: { email: a }\nhosted: {}\nupstreams:\n  quay.io:\n    quota: 0\n    credentials: { username: a, password: b, tokenFile: c }\n    access: shared\n",
    faults: [
      ":1: acme: unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log",
      ":2: hosted: unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log",
      ":5: upstreams.quay.io.quota: unknown key; known here: default, endpoints, aliases, hostnames, libraryPrefix, credentials, access, freshness, allow, deny, redirectHosts, tokenRealms, concurrency, bandwidth, connectTimeout, headersTimeout, idleTimeout, proxy, tls",
      ":6: upstreams.quay.io.credentials.tokenFile: unknown key; known here: username, password, passwordFile, dockerConfigFile, helper",
    ],
  },
  {
    name: "unknown keys that would break a line or a terminal",
    yaml: '"a b": 1\n"a\\nb": 1\n"\\e[31m": 1\n__proto__: { offline: true }\n',
    faults: [
      ':1: "a b": unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log',
      ':2: "a\\nb": unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log',
      ':3: "\\u001b[31m": unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log',
      ":4: __proto__: unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log",
    ],
  },
  {
    name: "values of another type",
    yaml: 'listen: 5000\noperator: off\nstorage: [./data]\noffline: "true"\nlog: { level: 1, format: true }\nupstreams: quay.io\n',
    faults: [
      `:1: listen: 5000; ${LISTEN}, or a list of such`,
      ':2: operator: "off"; a mapping',
      ":3: storage: a list; a mapping",
      ':4: offline: "true"; true or false',
      ":5: log.level: 1; one of trace, debug, info, warn, error, fatal",
      ":5: log.format: true; one of json, pretty",
      ':6: upstreams: "quay.io"; a mapping of registries\' names',
    ],
  },
  {
    name: "keys without a value",
    yaml: "listen:\noperator: { listen: }\nstorage:\n  root: ~\nupstreams:\n",
    faults: [
      `:1: listen: no value; ${LISTEN}, or a list of such`,
      ':2: operator.listen: no value; HOST:PORT, such as 127.0.0.1:5001 or, in quotes, "[::1]:5001", or false',
      ":4: storage.root: no value; the path of a folder",
      ":5: upstreams: no value; a mapping of registries' names",
    ],
  },
  {
    name: "addresses that cannot be listened on",
    yaml: 'listen:\n  - localhost\n  - ":5000"\n  - 127.0.0.1:65536\n  - "::1:5000"\n  - "[127.0.0.1]:5000"\n  - 300.0.0.1:5000\n  - http://127.0.0.1:5000\noperator: { listen: true }\n',
    faults: [
      `:2: listen[0]: "localhost"; ${LISTEN}`,
      `:3: listen[1]: ":5000"; ${LISTEN}`,
      `:4: listen[2]: "127.0.0.1:65536"; ${LISTEN}`,
      `:5: listen[3]: "::1:5000"; ${LISTEN}`,
      `:6: listen[4]: "[127.0.0.1]:5000"; ${LISTEN}`,
      `:7: listen[5]: "300.0.0.1:5000"; ${LISTEN}`,
      `:8: listen[6]: "http://127.0.0.1:5000"; ${LISTEN}`,
      ':9: operator.listen: true; HOST:PORT, such as 127.0.0.1:5001 or, in quotes, "[::1]:5001", or false',
    ],
  },
  {
    name: "empty lists and texts where something must be",
    yaml: `listen: []\nstorage: { root: "" }\n${upstream("endpoints: []")}`,
    faults: [
      `:1: listen: an empty list; ${LISTEN}, or a list of such`,
      ':2: storage.root: ""; the path of a folder',
      ":3: upstreams.quay.io.endpoints: an empty list; a list of one to sixteen URLs, each once",
    ],
  },
  {
    name: "names that are no registry's",
    yaml: "upstreams:\n  Quay.io: {}\n  quay.io/team: {}\n  https://quay.io: {}\n  v2: {}\n  a..b: {}\n  ghcr.io: { aliases: [V2, v2, a b] }\n",
    faults: [
      ":2: upstreams.Quay.io: no registry's name; lower case: quay.io",
      `:3: upstreams.quay.io/team: no registry's name; ${NAME}`,
      `:4: upstreams.https://quay.io: no registry's name; ${NAME}`,
      `:5: upstreams.v2: no registry's name; ${NAME}`,
      `:6: upstreams.a..b: no registry's name; ${NAME}`,
      ':7: upstreams.ghcr.io.aliases[0]: "V2"; lower case: v2',
      ':7: upstreams.ghcr.io.aliases[1]: "v2"; a name in lower case, such as hub or registry.corp:5000, and not v2',
      ':7: upstreams.ghcr.io.aliases[2]: "a b"; a name in lower case, such as hub or registry.corp:5000, and not v2',
    ],
  },
  {
    name: "endpoints that are no base URL of a registry",
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
      ':4: upstreams.quay.io.endpoints[0]: "quay.io"; an absolute URL: https://quay.io',
      ':5: upstreams.quay.io.endpoints[1]: "ftp://quay.io"; an absolute http or https URL, such as https://quay.io',
      ":6: upstreams.quay.io.endpoints[2]: a URL with a user name; a URL without one; user name and password go in credentials",
      ":7: upstreams.quay.io.endpoints[3]: a URL with a query or a fragment; a URL without one",
      ":8: upstreams.quay.io.endpoints[4]: a URL with a query or a fragment; a URL without one",
      ':9: upstreams.quay.io.endpoints[5]: "https://quay.io/v2/"; the URL without /v2: https://quay.io',
      ':10: upstreams.quay.io.endpoints[6]: "https://quay.io/a/../b c"; an absolute http or https URL, such as https://quay.io',
      ':11: upstreams.quay.io.endpoints[7]: "https://quay.io/Team"; an absolute http or https URL, such as https://quay.io',
      ':12: upstreams.quay.io.endpoints[8]: "https://quay.io:0"; an absolute http or https URL, such as https://quay.io',
      ":13: upstreams.quay.io.endpoints[9]: 443; an absolute http or https URL, such as https://quay.io",
    ],
  },
  {
    name: "hosts that are none",
    yaml: upstream(
      'hostnames: [Hub.corp, "http://hub.corp"], tokenRealms: [auth.corp/token, "*.corp"]',
    ),
    faults: [
      ':1: upstreams.quay.io.hostnames[0]: "Hub.corp"; lower case: hub.corp',
      ':1: upstreams.quay.io.hostnames[1]: "http://hub.corp"; a host in lower case, such as hub.mirror.internal',
      ':1: upstreams.quay.io.tokenRealms[0]: "auth.corp/token"; a host in lower case, such as auth.corp',
      ':1: upstreams.quay.io.tokenRealms[1]: "*.corp"; a host in lower case, such as auth.corp',
    ],
  },
  {
    name: "the same item twice in a list",
    yaml: `listen: ["[::1]:5000", "[::1]:5000"]\n${upstream("aliases: [a, b, a]")}`,
    faults: [
      `:1: listen[1]: "[::1]:5000" again; each once`,
      ':2: upstreams.quay.io.aliases[2]: "a" again; each once',
    ],
  },
  {
    name: "durations without a unit, out of bounds, or none",
    yaml: upstream(
      "connectTimeout: 5, headersTimeout: 19s, idleTimeout: forever, freshness: { tagTtl: 1w, staleIfError: -1s, staleWhileRevalidate: 0, notFoundTtl: 25h }",
    ),
    faults: [
      `:1: upstreams.quay.io.freshness.tagTtl: "1w"; ${DURATION}`,
      `:1: upstreams.quay.io.freshness.staleIfError: "-1s"; ${DURATION}`,
      `:1: upstreams.quay.io.freshness.staleWhileRevalidate: 0; ${DURATION}`,
      ':1: upstreams.quay.io.freshness.notFoundTtl: "25h"; a duration of at most 24h, such as 30s',
      ":1: upstreams.quay.io.connectTimeout: 5; a duration above 0s and at most 18s, such as 5s",
      ':1: upstreams.quay.io.headersTimeout: "19s"; a duration above 0s and at most 18s, such as 10s',
      ':1: upstreams.quay.io.idleTimeout: "forever"; a duration above 0s and at most 1h, such as 15s',
    ],
  },
  {
    name: "time-outs of nothing",
    yaml: upstream("connectTimeout: 0s, headersTimeout: 0ms, idleTimeout: 0h"),
    faults: [
      ':1: upstreams.quay.io.connectTimeout: "0s"; a duration above 0s and at most 18s, such as 5s',
      ':1: upstreams.quay.io.headersTimeout: "0ms"; a duration above 0s and at most 18s, such as 10s',
      ':1: upstreams.quay.io.idleTimeout: "0h"; a duration above 0s and at most 1h, such as 15s',
    ],
  },
  {
    name: "numbers out of bounds",
    yaml: "upstreams:\n  a.io: { concurrency: -1 }\n  b.io: { concurrency: 1025 }\n  c.io: { concurrency: 1.5 }\n  d.io: { concurrency: .inf }\n  e.io: { concurrency: '32' }\n",
    faults: [
      ":2: upstreams.a.io.concurrency: -1; a whole number from 0 to 1024",
      ":3: upstreams.b.io.concurrency: 1025; a whole number from 0 to 1024",
      ":4: upstreams.c.io.concurrency: 1.5; a whole number from 0 to 1024",
      ":5: upstreams.d.io.concurrency: Infinity; a whole number from 0 to 1024",
      ':6: upstreams.e.io.concurrency: "32"; a whole number from 0 to 1024',
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
      `:5: upstreams.quay.io.freshness.rules[0].match: ""; ${PATTERN}`,
      `:6: upstreams.quay.io.freshness.rules[1].match: "a:b:c"; ${PATTERN}`,
      `:7: upstreams.quay.io.freshness.rules[2].match: "Team/*"; ${PATTERN}`,
      `:8: upstreams.quay.io.freshness.rules[3].match: "/^a/"; ${PATTERN}`,
      `:8: upstreams.quay.io.freshness.rules[3].ttl: "soon"; ${DURATION}`,
      `:9: upstreams.quay.io.freshness.rules[4].match: not written; ${PATTERN}`,
      `:10: upstreams.quay.io.freshness.rules[5].ttl: not written; ${DURATION}`,
      ':11: upstreams.quay.io.freshness.rules[6]: "latest"; a mapping of match and ttl',
    ],
  },
  {
    name: "access that is not available yet, told once",
    yaml: upstream("access: caller, credentials: { username: a, password: b }"),
    faults: [
      ':1: upstreams.quay.io.access: "caller"; shared; the value caller is not available yet',
    ],
  },
];

const CROSS_FAULTS: readonly Case[] = [
  {
    name: "credentials without access written out",
    yaml: "upstreams:\n  a.io:\n    credentials: { username: a, password: b }\n  b.io:\n    credentials: []\n",
    faults: [
      ":2: upstreams.a.io.access: not written, although there are credentials; access: shared, for whoever may use the mirror may read what these credentials fetched",
    ],
  },
  {
    name: "numbers and truths where a text belongs, and no secret",
    yaml: upstream(
      "access: shared, credentials: [{ username: 4711, password: 4711 }, { username: true, password: '' }, hunter2]",
    ),
    faults: [
      ":1: upstreams.quay.io.credentials[0].username: a number; a user name without a colon, in quotes",
      ":1: upstreams.quay.io.credentials[0].password: a number; a password that is not empty, in quotes",
      ":1: upstreams.quay.io.credentials[1].username: true or false; a user name without a colon, in quotes",
      ":1: upstreams.quay.io.credentials[1].password: an empty text; a password that is not empty",
      ":1: upstreams.quay.io.credentials[2]: a text; a mapping of username and password or passwordFile, of dockerConfigFile, or of helper",
    ],
  },
  {
    name: "credentials in one text, and not the text",
    yaml: upstream("credentials: 'a:hunter2'"),
    faults: [
      ":1: upstreams.quay.io.credentials: a text; a mapping of username and password or passwordFile, of dockerConfigFile, or of helper; or a list of such",
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
      ":5: upstreams.quay.io.credentials[0]: both password and passwordFile; one of them",
      ":5: upstreams.quay.io.credentials[0].passwordFile: FOLDER/b: no such file; a readable file of at most 64 KiB",
      ":6: upstreams.quay.io.credentials[1]: neither password nor passwordFile; one of them",
      ":7: upstreams.quay.io.credentials[2].username: not written; a user name without a colon",
      ":8: upstreams.quay.io.credentials[3].username: a text; a user name without a colon",
    ],
  },
  {
    name: "credentials of several forms in one, and forms that are none",
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
      ":5: upstreams.quay.io.credentials[0]: helper and username and password together; helper alone; a list holds several credentials",
      ":6: upstreams.quay.io.credentials[1]: dockerConfigFile and helper together; dockerConfigFile alone; a list holds several credentials",
      ":6: upstreams.quay.io.credentials[1].dockerConfigFile: FOLDER/nowhere: no such file; a readable config.json of Docker's, at most 1 MiB",
      ':7: upstreams.quay.io.credentials[2].helper: "docker-credential-x get"; a program\'s name or path without blanks, such as docker-credential-ecr-login',
      `:8: upstreams.quay.io.credentials[3].helper: ""; a program's name or path without blanks, such as docker-credential-ecr-login`,
      ':9: upstreams.quay.io.credentials[4].dockerConfigFile: ""; the path of a file',
      ":10: upstreams.quay.io.credentials[5].dockerConfigFile: 1; the path of a file, in quotes",
      ":11: upstreams.quay.io.credentials[6].username: not written; a user name without a colon",
      ":11: upstreams.quay.io.credentials[6]: neither password nor passwordFile; one of them",
      ":12: upstreams.gcr.io.access: not written, although there are credentials; access: shared, for whoever may use the mirror may read what these credentials fetched",
    ],
  },
  {
    name: "a password over plain http, unless it stays on the machine",
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
        `:3: upstreams.quay.io.endpoints[${index}]: ${["http://registry.corp", "http://10.0.0.1:5000", "http://127.0.0.1.corp"][index]} beside credentials: anybody on the way could read the password; https, with tls.caFile where the authority is your own`,
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
      ":4: upstreams.quay.io.aliases[0]: ghcr.io, the name of upstreams.ghcr.io; each name once",
      ":4: upstreams.quay.io.aliases[1]: quay.io, the name of upstreams.quay.io; each name once",
      ":6: upstreams.ghcr.io.aliases[0]: q, an alias of upstreams.quay.io already; each name once",
      ":6: upstreams.ghcr.io.aliases[1]: index.docker.io, an alias of docker.io already, unless that has aliases: []; each name once",
      ":7: upstreams.registry-1.docker.io: registry-1.docker.io, an alias of docker.io already, unless that has aliases: []; each name once",
    ],
  },
  {
    name: "one hostname for two upstreams",
    yaml: "upstreams:\n  quay.io: { hostnames: [m.corp] }\n  ghcr.io: { hostnames: [m.corp] }\n",
    faults: [
      ":3: upstreams.ghcr.io.hostnames[0]: m.corp, a hostname of upstreams.quay.io already; each hostname once",
    ],
  },
  {
    name: "two default upstreams",
    yaml: "upstreams:\n  quay.io: { default: true }\n  ghcr.io: { default: false }\n  gcr.io: { default: true }\n",
    faults: [
      ":4: upstreams.gcr.io.default: true, as at upstreams.quay.io already; one default upstream at most",
    ],
  },
  {
    name: "two listeners at one place",
    yaml: 'listen: [127.0.0.1:80, "[::]:443", 127.0.0.1:443, localhost:0, 127.0.0.1:0]\noperator: { listen: 0.0.0.0:80 }\n',
    faults: [
      ":1: listen[2]: 127.0.0.1:443, where another listener is already; a port of its own",
      ":2: operator.listen: 0.0.0.0:80, where another listener is already; a port of its own",
    ],
  },
  {
    name: "faults of every kind at once",
    yaml: `loglevel: info
upstreams:
  quay.io:
    credentials: { username: a, passwordFile: nowhere }
    connectTimeout: 1h
    tls: { caFile: nowhere.crt }
`,
    faults: [
      ":1: loglevel: unknown key; known here: listen, tls, operator, storage, eviction, scrub, offline, upstreams, access, trustedProxies, limits, audit, log",
      ":3: upstreams.quay.io.access: not written, although there are credentials; access: shared, for whoever may use the mirror may read what these credentials fetched",
      ":4: upstreams.quay.io.credentials.passwordFile: FOLDER/nowhere: no such file; a readable file of at most 64 KiB",
      ':5: upstreams.quay.io.connectTimeout: "1h"; a duration above 0s and at most 18s, such as 5s',
      ":6: upstreams.quay.io.tls.caFile: FOLDER/nowhere.crt: no such file; a readable file of PEM certificates",
    ],
  },
];

const SYNTAX_FAULTS: readonly Case[] = [
  {
    name: "a tab as indentation",
    yaml: "log:\n\tlevel: info\n",
    faults: [":2: a tab as indentation; spaces"],
  },
  {
    name: "a key twice, also below others",
    yaml: "log: { level: info }\nupstreams:\n  quay.io:\n  ghcr.io: { default: true,\n    default: false }\n  quay.io:\nlog: {}\n",
    faults: [
      ":5: upstreams.ghcr.io.default: the same key as in line 4; each key once",
      ":6: upstreams.quay.io: the same key as in line 3; each key once",
      ":7: log: the same key as in line 1; each key once",
    ],
  },
  {
    name: "an IPv6 address without quotes",
    yaml: "listen: [::1]:5000\n",
    faults: [
      ':1: something that does not belong there; quotes around a text with brackets, commas or colons, such as "[::1]:5000"',
    ],
  },
  {
    name: "a pattern without quotes, and never its text",
    yaml: upstream("freshness: { rules: [{ match: **:latest, ttl: 1m }] }"),
    faults: [
      ":1: upstreams.quay.io.freshness.rules[0].match: an alias without its anchor; quotes around a text that begins with *",
    ],
  },
  {
    name: "a password without quotes, and never its text",
    yaml: "upstreams:\n  quay.io:\n    credentials:\n      - { username: a, password: *hunter2 }\n      - { username: a, password: &hunter2 }\n",
    faults: [
      ":4: upstreams.quay.io.credentials[0].password: an alias without its anchor; quotes around a text that begins with *",
    ],
  },
  {
    name: "tags, and never their text",
    yaml: "log: !hunter2 { level: info }\nlisten: !!binary aGk=\n",
    faults: [
      ":1: a tag; no tags; a text with ! goes in quotes",
      ":2: a tag; no tags; a text with ! goes in quotes",
    ],
  },
  {
    name: "another version of YAML",
    yaml: "%YAML 1.1\n---\noffline: yes\n",
    faults: [":1: YAML 1.1; YAML 1.2"],
  },
  {
    name: "a second document",
    yaml: "offline: true\n---\noffline: false\n",
    faults: [":2: a second document; one document a file"],
  },
  {
    name: "quotes that are not closed",
    yaml: "listen: 'hunter2\n",
    faults: [
      ":2: something is missing; quotes and brackets are closed, and a colon follows each key",
    ],
  },
  {
    name: "a list or a text in place of keys",
    yaml: "\n- listen\n",
    faults: [":2: no mapping; `key: value`"],
  },
  {
    name: "an anchor that holds itself",
    yaml: "log: &a { level: *a }\n",
    faults: [
      ":1: log.level: an alias without its anchor; quotes around a text that begins with *",
    ],
  },
  {
    name: "an alias bomb",
    yaml: `a: &a0 [${"x,".repeat(9)}]\n${Array.from({ length: 9 }, (_, i) => `${i}: &a${i + 1} [${`*a${i},`.repeat(9)}]\n`).join("")}`,
    faults: [":6: 4[0]: too many aliases; fewer"],
  },
  {
    name: "a nest deeper than any configuration",
    yaml: `a: ${"[".repeat(100)}${"]".repeat(100)}\n`,
    faults: [`:1: a${"[0]".repeat(32)}: nested too deep; fewer levels`],
  },
];

for (const { name, yaml, faults } of [...SCHEMA_FAULTS, ...CROSS_FAULTS]) {
  void test(`tells ${name}`, async (t) => {
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
  void test(`tells of YAML ${name}`, async (t) => {
    const folder = await makeConfigFolder(t);
    const printed = printedFaults(await folder.loadText(yaml));
    assert.deepEqual(
      printed.slice(0, faults.length),
      faults.map((fault) => `c.yaml${fault}`),
    );
    assert.ok(!printed.join("\n").includes("hunter2"));
  });
}
