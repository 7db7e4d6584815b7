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

const READABLE = "a readable YAML file of at most 1048576 bytes";
const CREDENTIALS = "upstreams.quay.io.credentials";

function withPasswordFile(path: string): string {
  return `upstreams: { quay.io: { access: shared, credentials: { username: a, passwordFile: ${path} } } }`;
}

void test("--config comes before $ENTREPOT_CONFIG, which comes before the system's file", async (t) => {
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

void test("a named file that is not there is a fault; a system's file that is not there is none", async (t) => {
  const folder = await makeConfigFolder(t);
  assert.deepEqual(
    printedFaults(await folder.load({ configFile: "no.yaml" })),
    [`no.yaml: no such file; ${READABLE}`],
  );
  assert.deepEqual(
    printedFaults(await folder.load({ env: { ENTREPOT_CONFIG: "~/no.yaml" } })),
    [`~/no.yaml: no such file; ${READABLE}`],
  );
  assert.deepEqual(printedFaults(await folder.load()), []);
});

void test("a system's file that cannot be read is a fault", async (t) => {
  const folder = await makeConfigFolder(t);
  await mkdir(join(folder.path, "system.yaml"));
  assert.deepEqual(printedFaults(await folder.load()), [
    `${folder.path}/system.yaml: a folder; ${READABLE}`,
  ]);
});

void test("files that are too large, no text or no file are refused by their name", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("large.yaml", "#".repeat(1_048_577));
  await folder.write("full.yaml", "#".repeat(1_048_576));
  await folder.write("latin.yaml", Buffer.from("# caf\xe9", "latin1"));
  await symlink("loop.yaml", join(folder.path, "loop.yaml"));
  const table: [string, string[]][] = [
    ["large.yaml", [`large.yaml: more than 1048576 bytes; ${READABLE}`]],
    ["full.yaml", []],
    ["latin.yaml", [`latin.yaml: bytes that are not UTF-8; ${READABLE}`]],
    ["loop.yaml", [`loop.yaml: a loop of symbolic links; ${READABLE}`]],
    ["/dev/zero", [`/dev/zero: no regular file; ${READABLE}`]],
    ["large.yaml/x", [`large.yaml/x: no such file; ${READABLE}`]],
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

void test("Docker Hub is known by its key and by its alias", async (t) => {
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

void test("paths of the file begin in its folder, ~/ is home, others begin in the current folder", async (t) => {
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

void test("one newline is cut from a password file, and nothing else", async (t) => {
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

void test("a password file that gives no password is a fault that names it", async (t) => {
  const folder = await makeConfigFolder(t);
  await folder.write("empty", "\n");
  await folder.write("large", "x".repeat(65_537));
  await folder.write("binary", Buffer.from([0xff, 0xfe]));
  const path = (name: string): string => join(folder.path, name);
  const readable = "a readable file of at most 64 KiB";
  const table: [string, string][] = [
    [
      "empty",
      `${path("empty")}: an empty file; a file that holds the password`,
    ],
    ["large", `${path("large")}: more than 65536 bytes; ${readable}`],
    ["binary", `${path("binary")}: bytes that are not UTF-8; ${readable}`],
    [".", `${folder.path}: a folder; ${readable}`],
    ["/dev/zero", `/dev/zero: no regular file; ${readable}`],
    ["~/no", `${path("no")}: no such file; ${readable}`],
  ];
  for (const [file, want] of table) {
    assert.deepEqual(
      printedFaults(await folder.loadText(withPasswordFile(file))),
      [`c.yaml:1: ${CREDENTIALS}.passwordFile: ${want}`],
    );
  }
});

void test("a CA file that holds no certificate, or a broken one, is a fault; an empty name is none", async (t) => {
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
    ["text.crt", "no certificate"],
    ["broken.crt", "a certificate that cannot be read"],
    ["large.crt", "more than 1048576 bytes"],
    ["no.crt", "no such file"],
  ];
  for (const [file, seen] of table) {
    const result = await folder.loadText(
      `upstreams: { quay.io: { tls: { caFile: ${file} } } }`,
    );
    const want = `c.yaml:1: upstreams.quay.io.tls.caFile: ${join(folder.path, file)}: ${seen}; a readable file of PEM certificates`;
    assert.deepEqual(printedFaults(result), seen === undefined ? [] : [want]);
    assert.deepEqual(printedWarnings(result), []);
  }
});

void test("a certificate check that is switched off is warned of, and off for the process refused", async (t) => {
  const folder = await makeConfigFolder(t);
  const result = await folder.loadText(
    "upstreams:\n  quay.io:\n    tls: { insecureSkipVerify: true }\n",
  );
  assert.deepEqual(printedFaults(result), []);
  assert.deepEqual(printedWarnings(result), [
    "c.yaml:3: upstreams.quay.io.tls.insecureSkipVerify: true, so that anybody on the way can answer in the upstream's place; caFile with the authority that signed its certificate",
  ]);
  const env = { NODE_TLS_REJECT_UNAUTHORIZED: "0" };
  assert.deepEqual(printedFaults(await folder.load({ env })), [
    "NODE_TLS_REJECT_UNAUTHORIZED: 0, which takes the certificate check from every upstream; unset; tls.caFile or tls.insecureSkipVerify at one upstream",
  ]);
  assert.deepEqual(
    printedFaults(
      await folder.load({ env: { NODE_TLS_REJECT_UNAUTHORIZED: "1" } }),
    ),
    [],
  );
});

void test("a file of a mebibyte of keys is judged, not compared key by key", async (t) => {
  const folder = await makeConfigFolder(t);
  const keys = Array.from({ length: 70_000 }, (_, index) => `k${index}: 1\n`);
  const faults = printedFaults(await folder.loadText(keys.join("")));
  assert.equal(faults.length, 70_000);
  assert.match(faults[69_999] ?? "", /^c\.yaml:70000: k69999: unknown key; /);
});

void test("a Docker config.json is taken by its path, and by no word of it", async (t) => {
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

void test("a credential helper that cannot be run is a fault at its key", async (t) => {
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
  const missing = `${place}${name}: no such program in PATH; a program in PATH, or the path of one`;
  assert.deepEqual(await faultOf(name), [missing]);
  const file = await folder.write(`bin/${name}`, "#!/bin/sh\n", 0o644);
  assert.deepEqual(await faultOf(name), [missing]);
  assert.deepEqual(await faultOf(`./bin/${name}`), [
    `${place}${file}: a file that may not be run; a program that can be run`,
  ]);
  assert.deepEqual(await faultOf("./nowhere"), [
    `${place}${join(folder.path, "nowhere")}: no such file; a program that can be run`,
  ]);
  await chmod(file, 0o755);
  assert.deepEqual(await faultOf(name), []);
  assert.deepEqual(await faultOf(`./bin/${name}`), []);
});

void test("a helper that a Docker config.json names for an endpoint is judged too", async (t) => {
  const folder = await makeConfigFolder(t);
  const env = { PATH: join(folder.path, "bin") };
  const yaml =
    "upstreams: { quay.io: { access: shared, credentials: { dockerConfigFile: config.json } } }";
  const place = `c.yaml:1: ${CREDENTIALS}.dockerConfigFile: ${join(folder.path, "config.json")}`;
  await folder.write(
    "config.json",
    JSON.stringify({ credsStore: "desktop", credHelpers: { "ghcr.io": "gh" } }),
  );
  assert.deepEqual(printedFaults(await folder.loadText(yaml, { env })), [
    `${place} names docker-credential-desktop: no such program in PATH; a program in PATH, or the path of one`,
  ]);
  // Of another registry.
  await folder.write(
    "config.json",
    JSON.stringify({ credHelpers: { "ghcr.io": "gh" } }),
  );
  assert.deepEqual(printedFaults(await folder.loadText(yaml, { env })), []);
});

void test("a Docker config.json that is none is told of", async (t) => {
  const folder = await makeConfigFolder(t);
  const yaml =
    "upstreams: { quay.io: { access: shared, credentials: { dockerConfigFile: config.json } } }";
  const place = `c.yaml:1: ${CREDENTIALS}.dockerConfigFile: ${join(folder.path, "config.json")}`;
  await folder.write("config.json", "[hunter2");
  assert.deepEqual(printedFaults(await folder.loadText(yaml)), [
    `${place}: no JSON mapping; a readable config.json of Docker's, at most 1 MiB`,
  ]);
});
