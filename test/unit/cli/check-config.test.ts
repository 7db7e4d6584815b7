import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { test } from "node:test";
import { parse } from "yaml";
import { runCheckConfig } from "../../../src/cli/check-config.ts";
import {
  type ConfigFolder,
  makeConfigFolder,
} from "../../support/config-folder.ts";

const CANARY = "canary-4711";

const FILE = `
upstreams:
  docker.io:
    default: true
    credentials:
      - { username: acme, passwordFile: hub }
      - { username: other, password: ${CANARY} }
    access: shared
    freshness: { rules: [{ match: "**:latest", ttl: 60s }] }
`;

async function check(
  folder: ConfigFolder,
  json?: boolean,
  changed?: boolean,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const output = { stdout: "", stderr: "" };
  const collect = (name: "stdout" | "stderr"): Writable =>
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        output[name] += chunk.toString();
        done();
      },
    });
  const code = await runCheckConfig({
    configFile: "c.yaml",
    env: {},
    cwd: folder.path,
    home: folder.path,
    stdout: collect("stdout"),
    stderr: collect("stderr"),
    json,
    changed,
  });
  return { code, ...output };
}

void test("prints the effective configuration as YAML, with readable units and hidden secrets", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("hub", CANARY);
  await folder.write("c.yaml", FILE);
  const { code, stdout, stderr } = await check(folder);
  assert.equal(stderr, "");
  assert.equal(
    stdout,
    `listen: 127.0.0.1:5000
operator:
  listen: 127.0.0.1:5001
storage:
  root: ${folder.path}/data
eviction:
  maxSize: 80%
  minFree: 5%
  maxIdle: 90d
  keep: []
scrub:
  background: 1%
  onRead: 7d
offline: false
upstreams:
  docker.io:
    default: true
    endpoints:
      - https://registry-1.docker.io
    aliases:
      - index.docker.io
      - registry-1.docker.io
    hostnames: []
    libraryPrefix: true
    credentials:
      - username: acme
        passwordFile: ${folder.path}/hub
      - username: other
        password: "[redacted]"
    access: shared
    freshness:
      tagTtl: 10m
      rules:
        - match: "**:latest"
          ttl: 60s
      staleIfGone: 0s
      staleIfError: forever
      staleWhileRevalidate: 0s
      notFoundTtl: 30s
    allow: []
    deny: []
    redirectHosts: []
    tokenRealms: []
    concurrency: 0
    bandwidth: 0
    connectTimeout: 5s
    headersTimeout: 10s
    idleTimeout: 15s
    tls:
      insecureSkipVerify: false
hosted:
  local:
    default: false
    hostnames: []
    anonymousPush: loopback
    immutableTags: []
    quota: 0
    maxManifestSize: 4MiB
    uploadExpiry: 24h
notifications: []
warm: []
trustedProxies: []
limits:
  connections: 0
  connectionsPerAddress: 0
  fills: 0
  uploads: 0
log:
  level: info
  format: json
`,
  );
  assert.equal(code, 0);
});

void test("prints the same configuration as JSON with --json", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("hub", CANARY);
  await folder.write("c.yaml", FILE);
  const yaml = await check(folder);
  const json = await check(folder, true);
  assert.equal(json.code, 0);
  assert.deepEqual(JSON.parse(json.stdout), parse(yaml.stdout));
  assert.ok(!json.stdout.includes(CANARY));
});

void test("prints a configuration that loads to the same settings", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("c.yaml", 'listen: ["[::1]:5000", localhost:0]');
  const first = await check(folder);
  await folder.write("c.yaml", first.stdout);
  const second = await check(folder);
  assert.equal(second.stderr, "");
  assert.equal(second.stdout, first.stdout);
});

void test("prints sizes and durations as written, and reads them again", async (t) => {
  const folder = await makeConfigFolder(t);
  const written = [
    "eviction:",
    "  maxSize: 0",
    "  minFree: 1536MiB",
    "  maxIdle: 2160h",
    "upstreams:",
    "  quay.io:",
    "    bandwidth: 10000KiB",
    "    connectTimeout: 5000ms",
  ];
  await folder.write("c.yaml", written.join("\n"));
  const first = await check(folder);
  for (const line of written) assert.ok(first.stdout.includes(line), line);
  await folder.write("c.yaml", first.stdout);
  const second = await check(folder);
  assert.equal(second.stderr, "");
  assert.equal(second.stdout, first.stdout);
});

/** A configuration, and the part of it that differs from the defaults. */
const CHANGES: readonly (readonly [string, string])[] = [
  ["listen: 127.0.0.1:5000\neviction: { maxIdle: 2160h }\n", "{}\n"],
  [
    "listen: 127.0.0.1:5005\neviction: { maxIdle: 720h }\noperator: { listen: false }\nlog: { level: info, format: pretty }\n",
    "listen: 127.0.0.1:5005\noperator:\n  listen: false\neviction:\n  maxIdle: 720h\nlog:\n  format: pretty\n",
  ],
  [
    "upstreams: { docker.io: { default: true, freshness: { tagTtl: 600s, notFoundTtl: 60s } }, quay.io: }\n",
    "upstreams:\n  docker.io:\n    default: true\n    freshness:\n      notFoundTtl: 60s\n  quay.io: {}\n",
  ],
  [
    "upstreams: { quay.io: { credentials: { helper: FOLDER/helper }, access: shared } }\n",
    "upstreams:\n  quay.io:\n    credentials:\n      - helper: FOLDER/helper\n    access: shared\n",
  ],
  [
    "upstreams: {}\naccess: { anonymous: pull, rules: [{ who: [a], repositories: ['**'], actions: [pull] }] }\n",
    'access:\n  rules:\n    - who:\n        - a\n      repositories:\n        - "**"\n      actions:\n        - pull\nupstreams: {}\n',
  ],
];

for (const [written, want] of CHANGES) {
  void test(`--changed of ${JSON.stringify(written)} prints what differs, and loads to the same settings`, async (t) => {
    const folder = await makeConfigFolder(t);
    await folder.write("helper", "#!/bin/sh\n", 0o755);
    const fill = (text: string): string =>
      text.replaceAll("FOLDER", folder.path);
    await folder.write("c.yaml", fill(written));
    const whole = await check(folder);
    const changed = await check(folder, false, true);
    assert.equal(changed.stdout, fill(want));
    assert.equal(changed.code, 0);
    assert.deepEqual(
      JSON.parse((await check(folder, true, true)).stdout),
      parse(changed.stdout),
    );
    await folder.write("c.yaml", changed.stdout);
    const again = await check(folder);
    assert.deepEqual(normal(again.stdout), normal(whole.stdout));
  });
}

/** Equal durations are printed as written, so they are normalized before a comparison. */
function normal(yaml: string): string {
  return yaml
    .replace("2160h", "90d")
    .replace("600s", "10m")
    .split("\n")
    .toSorted()
    .join("\n");
}

void test("prints every fault as a line on stderr, nothing on stdout, and exits with 2", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("c.yaml", "log: { level: loud }\nlisten: 5000\n");
  assert.deepEqual(await check(folder), {
    code: 2,
    stdout: "",
    stderr:
      'c.yaml:1: log.level: got "loud"; expected one of trace, debug, info, warn, error, fatal\n' +
      'c.yaml:2: listen: got 5000; expected HOST:PORT, such as 127.0.0.1:5000 or, in quotes, "[::1]:5000", or a list of these\n',
  });
});

void test("prints warnings on stderr and still the configuration", async (t) => {
  const folder = await makeConfigFolder(t);
  const file = await folder.write("htpasswd", "", 0o644);
  await folder.write(
    "c.yaml",
    "access: { htpasswdFile: htpasswd, anonymous: none }",
  );
  const { code, stdout, stderr } = await check(folder);
  assert.equal(code, 0);
  assert.notEqual(stdout, "");
  assert.equal(
    stderr,
    `warning: c.yaml:1: access.htpasswdFile: got ${file} (password hashes that every user of this machine may read); expected mode 0600, or 0640 with a group of the mirror; run chmod 0600 ${file}\n`,
  );
});

void test("rejects a secret that other users may read, with the text of a start", async (t) => {
  const folder = await makeConfigFolder(t);
  const file = await folder.write("hub", CANARY, 0o644);
  await folder.write("c.yaml", FILE);
  assert.deepEqual(await check(folder), {
    code: 2,
    stdout: "",
    stderr: `c.yaml:6: upstreams.docker.io.credentials[0].passwordFile: got ${file} (mode 0644, readable by every user of this machine); expected mode 0600, or 0640 with a group of the mirror; in Kubernetes defaultMode: 0440 with fsGroup; run chmod 0600 ${file}\n`,
  });
});
