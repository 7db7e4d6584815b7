import assert from "node:assert/strict";
import { chmod, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import {
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

const READABLE = "a YAML file no larger than 1 MiB";
const CREDENTIALS = "upstreams.quay.io.credentials";

function withPasswordFile(path: string): string {
  return `upstreams: { quay.io: { access: shared, credentials: { username: a, passwordFile: ${path} } } }`;
}

void test("--config takes precedence over $ENTREPOT_CONFIG, and that over the system file", async (t) => {
  const folder = await makeConfigFolder(t);
  for (const name of ["argument", "variable", "system"]) {
    await folder.write(`${name}.yaml`, `storage: { root: ${name} }`);
  }
  const env = { ENTREPOT_CONFIG: "variable.yaml" };
  const cases = [
    { options: { configFile: "argument.yaml", env }, want: "argument" },
    { options: { env }, want: "variable" },
    { options: {}, want: "system" },
    { options: { env: { ENTREPOT_CONFIG: "" } }, want: "system" },
  ];
  for (const { options, want } of cases) {
    const result = await folder.load(options);
    assert.ok(result.ok);
    assert.equal(result.config.storage.root, join(folder.path, want));
    assert.equal(result.sources.configFile, join(folder.path, `${want}.yaml`));
  }
});

void test("a missing file is a fault if it is named; a missing system file is not", async (t) => {
  const folder = await makeConfigFolder(t);
  assert.deepEqual(
    printedFaults(await folder.load({ configFile: "no.yaml" })),
    [`no.yaml: got no such file; expected ${READABLE}`],
  );
  assert.deepEqual(
    printedFaults(await folder.load({ env: { ENTREPOT_CONFIG: "~/no.yaml" } })),
    [`~/no.yaml: got no such file; expected ${READABLE}`],
  );
  assert.deepEqual(printedFaults(await folder.load()), []);
});

void test("an unreadable system file is a fault", async (t) => {
  const folder = await makeConfigFolder(t);
  await mkdir(join(folder.path, "system.yaml"));
  assert.deepEqual(printedFaults(await folder.load()), [
    `${folder.path}/system.yaml: got a folder; expected ${READABLE}`,
  ]);
});

void test("rejects files that are too large, not a text or not regular, by their names", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("large.yaml", "#".repeat(1_048_577));
  await folder.write("full.yaml", "#".repeat(1_048_576));
  await folder.write("latin.yaml", Buffer.from("# caf\xe9", "latin1"));
  await symlink("loop.yaml", join(folder.path, "loop.yaml"));
  const table: [string, string[]][] = [
    [
      "large.yaml",
      [`large.yaml: got more than 1048576 bytes; expected ${READABLE}`],
    ],
    ["full.yaml", []],
    [
      "latin.yaml",
      [`latin.yaml: got bytes that are not UTF-8; expected ${READABLE}`],
    ],
    [
      "loop.yaml",
      [`loop.yaml: got a loop of symbolic links; expected ${READABLE}`],
    ],
    ["/dev/zero", [`/dev/zero: got not a regular file; expected ${READABLE}`]],
    ["large.yaml/x", [`large.yaml/x: got no such file; expected ${READABLE}`]],
  ];
  for (const [configFile, want] of table) {
    assert.deepEqual(printedFaults(await folder.load({ configFile })), want);
  }
});

void test("a file without keys, or with a byte order mark, is fine", async (t) => {
  const folder = await makeConfigFolder(t);
  for (const text of ["", "# nothing\n", "---\n", "~", "\ufefflog: {}\n"]) {
    assert.deepEqual(printedFaults(await folder.loadText(text)), []);
  }
});

void test("an upstream without a value has every default, an empty mapping mirrors nothing", async (t) => {
  const folder = await makeConfigFolder(t);
  const one = await folder.loadText("upstreams:\n  quay.io:\n");
  assert.ok(one.ok);
  assert.deepEqual(
    one.config.upstreams.map(({ name, isDefault, endpoints }) => ({
      name,
      isDefault,
      endpoints,
    })),
    [{ name: "quay.io", isDefault: false, endpoints: ["https://quay.io"] }],
  );
  const none = await folder.loadText("upstreams: {}\n");
  assert.ok(none.ok);
  assert.deepEqual(none.config.upstreams, []);
});

void test("recognizes Docker Hub by its key and by its alias", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.loadText(`
upstreams:
  docker.io: { aliases: [hub], endpoints: [https://hub.corp] }
  mirror.corp: {}
`);
  assert.ok(result.ok);
  const seen = result.config.upstreams.map(
    ({ endpoints, aliases, libraryPrefix }) => ({
      endpoints,
      aliases,
      libraryPrefix,
    }),
  );
  assert.deepEqual(seen, [
    { endpoints: ["https://hub.corp"], aliases: ["hub"], libraryPrefix: true },
    {
      endpoints: ["https://mirror.corp"],
      aliases: [],
      libraryPrefix: false,
    },
  ]);
  const aliased = await folder.loadText(
    "upstreams:\n  hub.corp: { aliases: [docker.io] }\n  own.corp: { aliases: [docker.corp], libraryPrefix: true }\n",
  );
  assert.ok(aliased.ok);
  assert.deepEqual(
    aliased.config.upstreams.map((upstream) => upstream.libraryPrefix),
    [true, true],
  );
});

void test("resolves paths of the file against its folder, ~/ against home, other paths against the current folder", async (t) => {
  const folder = await makeConfigFolder(t);
  await mkdir(join(folder.path, "etc"));
  const { path } = folder;
  const table: [string, Readonly<Record<string, string>>, string][] = [
    ["storage: { root: cache }", {}, join(path, "etc/cache")],
    ["storage: { root: ../cache }", {}, join(path, "cache")],
    ["storage: { root: ~/cache }", {}, "/home/u/cache"],
    ["storage: { root: /cache }", {}, "/cache"],
    ["log: {}", {}, join(path, "data")],
    ["log: {}", { ENTREPOT_STORAGE__ROOT: "cache" }, join(path, "cache")],
    [
      "storage: { root: other }",
      { ENTREPOT_STORAGE__ROOT: "cache" },
      join(path, "cache"),
    ],
    ["log: {}", { ENTREPOT_STORAGE__ROOT: "~/cache" }, "/home/u/cache"],
  ];
  for (const [text, env, want] of table) {
    await folder.write("etc/c.yaml", text);
    const result = await folder.load({
      configFile: "etc/c.yaml",
      env,
      home: "/home/u",
    });
    assert.ok(result.ok);
    assert.equal(result.config.storage.root, want, text);
  }
});

void test("removes one newline from a password file and nothing else", async (t) => {
  const folder = await makeConfigFolder(t);
  const table: [string, string][] = [
    ["hunter2", "hunter2"],
    ["hunter2\n", "hunter2"],
    ["hunter2\r\n", "hunter2"],
    ["hunter2\n\n", "hunter2\n"],
    [" hunter2 ", " hunter2 "],
    ["pässwörd\n", "pässwörd"],
  ];
  for (const [text, want] of table) {
    await folder.write("password", text);
    const result = await folder.loadText(withPasswordFile("password"));
    assert.ok(result.ok);
    const [credential] = result.config.upstreams[0]?.credentials ?? [];
    assert.ok(credential && "password" in credential);
    assert.equal(credential.password.reveal(), want);
    assert.ok(!JSON.stringify(result).includes(want));
  }
});

void test("a password file without a password is a fault that names the file", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("empty", "\n");
  await folder.write("large", "x".repeat(65_537));
  await folder.write("binary", Buffer.from([0xff, 0xfe]));
  const path = (name: string): string => join(folder.path, name);
  const readable = "a readable file no larger than 64 KiB";
  const table: [string, string][] = [
    [
      "empty",
      `${path("empty")} (empty); expected a file that holds the password`,
    ],
    ["large", `${path("large")} (more than 65536 bytes); expected ${readable}`],
    [
      "binary",
      `${path("binary")} (bytes that are not UTF-8); expected ${readable}`,
    ],
    [".", `${folder.path} (a folder); expected ${readable}`],
    ["/dev/zero", `/dev/zero (not a regular file); expected ${readable}`],
    ["~/no", `${path("no")} (no such file); expected ${readable}`],
  ];
  for (const [file, want] of table) {
    assert.deepEqual(
      printedFaults(await folder.loadText(withPasswordFile(file))),
      [`c.yaml:1: ${CREDENTIALS}.passwordFile: got ${want}`],
    );
  }
});

void test("a CA file without certificates or with an invalid one is a fault; an empty name is not", async (t) => {
  const folder = await makeConfigFolder(t);
  const { cert } = createCertificateAuthority();
  await folder.write("good.crt", cert, 0o644);
  await folder.write("text.crt", "hello");
  await folder.write(
    "broken.crt",
    `${cert}-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n`,
  );
  await folder.write("large.crt", "x".repeat(1_048_577));
  const table: [string, string | undefined][] = [
    ["good.crt", undefined],
    ["''", undefined],
    ["text.crt", "no certificates"],
    ["broken.crt", "an invalid certificate"],
    ["large.crt", "more than 1048576 bytes"],
    ["no.crt", "no such file"],
  ];
  for (const [file, seen] of table) {
    const result = await folder.loadText(
      `upstreams: { quay.io: { tls: { caFile: ${file} } } }`,
    );
    const want = `c.yaml:1: upstreams.quay.io.tls.caFile: got ${join(folder.path, file)} (${seen}); expected a readable file of PEM certificates`;
    assert.deepEqual(printedFaults(result), seen === undefined ? [] : [want]);
    assert.deepEqual(printedWarnings(result), []);
  }
});

void test("warns of insecureSkipVerify and rejects NODE_TLS_REJECT_UNAUTHORIZED=0", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.loadText(
    "upstreams:\n  quay.io:\n    tls: { insecureSkipVerify: true }\n",
  );
  assert.deepEqual(printedFaults(result), []);
  assert.deepEqual(printedWarnings(result), [
    "c.yaml:3: upstreams.quay.io.tls.insecureSkipVerify: got true, which lets any host on the network path answer as the upstream; expected caFile with the authority that signed its certificate",
  ]);
  const env = { NODE_TLS_REJECT_UNAUTHORIZED: "0" };
  assert.deepEqual(printedFaults(await folder.load({ env })), [
    "NODE_TLS_REJECT_UNAUTHORIZED: got 0, which disables the certificate check of every upstream; expected an unset variable; set tls.caFile or tls.insecureSkipVerify of one upstream",
  ]);
  assert.deepEqual(
    printedFaults(
      await folder.load({ env: { NODE_TLS_REJECT_UNAUTHORIZED: "1" } }),
    ),
    [],
  );
});

void test("validates a file of 70 000 keys without comparing all pairs", async (t) => {
  const folder = await makeConfigFolder(t);
  const keys = Array.from({ length: 70_000 }, (_, index) => `k${index}: 1\n`);
  const faults = printedFaults(await folder.loadText(keys.join("")));
  assert.equal(faults.length, 70_000);
  assert.match(
    faults[69_999] ?? "",
    /^c\.yaml:70000: k69999: got an unknown key; /,
  );
});

void test("passes on the path of a Docker config.json and none of its content", async (t) => {
  const folder = await makeConfigFolder(t);
  const auth = Buffer.from("acme:hunter2").toString("base64");
  await folder.write(
    "docker/config.json",
    JSON.stringify({ auths: { "quay.io": { auth } } }),
  );
  await folder.write("bin/helper", "#!/bin/sh\n", 0o755);
  const result = await folder.loadText(
    "upstreams: { quay.io: { access: shared, credentials: [{ dockerConfigFile: docker/config.json }, { helper: docker-credential-corp }, { helper: ./bin/helper }] } }",
  );
  assert.ok(result.ok);
  assert.deepEqual(printedWarnings(result), []);
  const [upstream] = result.config.upstreams;
  assert.deepEqual(upstream?.credentials, [
    { dockerConfigFile: join(folder.path, "docker/config.json") },
    { helper: "docker-credential-corp" },
    { helper: join(folder.path, "bin/helper") },
  ]);
  assert.deepEqual(result.sources.files, [
    join(folder.path, "docker/config.json"),
  ]);
  assert.doesNotMatch(JSON.stringify(result), /hunter2|YWNtZ/);
});

void test("a credential helper that is not executable is a fault at its key", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = { PATH: join(folder.path, "bin") };
  const faultOf = async (helper: string): Promise<string[]> =>
    printedFaults(
      await folder.loadText(
        `upstreams: { quay.io: { access: shared, credentials: { helper: ${helper} } } }`,
        { env },
      ),
    );
  const place = `c.yaml:1: ${CREDENTIALS}.helper: `;
  const name = "docker-credential-corp";
  const missing = `${place}got ${name} (no such program in PATH); expected a program in PATH, or the path of one`;
  assert.deepEqual(await faultOf(name), [missing]);
  const file = await folder.write(`bin/${name}`, "#!/bin/sh\n", 0o644);
  assert.deepEqual(await faultOf(name), [missing]);
  assert.deepEqual(await faultOf(`./bin/${name}`), [
    `${place}got ${file} (permission denied); expected an executable program`,
  ]);
  assert.deepEqual(await faultOf("./nowhere"), [
    `${place}got ${join(folder.path, "nowhere")} (no such file); expected an executable program`,
  ]);
  await chmod(file, 0o755);
  assert.deepEqual(await faultOf(name), []);
  assert.deepEqual(await faultOf(`./bin/${name}`), []);
});

void test("checks the helper that a Docker config.json names for an endpoint", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = { PATH: join(folder.path, "bin") };
  const yaml =
    "upstreams: { quay.io: { access: shared, credentials: { dockerConfigFile: config.json } } }";
  const place = `c.yaml:1: ${CREDENTIALS}.dockerConfigFile: got`;
  const file = join(folder.path, "config.json");
  await folder.write(
    "config.json",
    JSON.stringify({ credsStore: "desktop", credHelpers: { "ghcr.io": "gh" } }),
  );
  assert.deepEqual(printedFaults(await folder.loadText(yaml, { env })), [
    `${place} docker-credential-desktop (no such program in PATH), named by ${file}; expected a program in PATH, or the path of one`,
  ]);
  // A helper of another registry.
  await folder.write(
    "config.json",
    JSON.stringify({ credHelpers: { "ghcr.io": "gh" } }),
  );
  assert.deepEqual(printedFaults(await folder.loadText(yaml, { env })), []);
});

void test("an invalid Docker config.json is a fault", async (t) => {
  const folder = await makeConfigFolder(t);
  const yaml =
    "upstreams: { quay.io: { access: shared, credentials: { dockerConfigFile: config.json } } }";
  const place = `c.yaml:1: ${CREDENTIALS}.dockerConfigFile: got`;
  const file = join(folder.path, "config.json");
  await folder.write("config.json", "[hunter2");
  assert.deepEqual(printedFaults(await folder.loadText(yaml)), [
    `${place} ${file} (not a JSON mapping); expected a readable Docker config.json no larger than 1 MiB`,
  ]);
});
