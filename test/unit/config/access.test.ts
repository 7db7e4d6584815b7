import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { describeConfig } from "../../../src/config/describe.ts";
import { parseHtpasswd } from "../../../src/config/files/htpasswd.ts";
import { htpasswdText } from "../../support/access.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import {
  type ConfigFolder,
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";
import type { AfterTest } from "../../support/after-test.ts";

const AUTHORITY = createCertificateAuthority();
const PAIR = AUTHORITY.issue();

async function furnished(test: AfterTest): Promise<ConfigFolder> {
  const folder = await makeConfigFolder(test);
  await folder.write("tls.crt", PAIR.cert);
  await folder.write("tls.key", PAIR.key);
  await folder.write("ca.crt", AUTHORITY.cert, 0o644);
  await folder.write("htpasswd", htpasswdText({ alice: "pw" }));
  await folder.write("other.key", AUTHORITY.issue().key);
  return folder;
}

const TOKEN_SERVER =
  "realm: https://a/t, service: s, issuer: i, certificateFile: tls.crt";

void describe("tls and access", () => {
  void it("are read with absolute paths, and described the same", async (test) => {
    const folder = await furnished(test);
    const result = await folder.loadText(`
tls: { certificateFile: tls.crt, keyFile: tls.key, clientCaFile: ca.crt }
access:
  htpasswdFile: htpasswd
  tokenServer: { ${TOKEN_SERVER} }
  anonymousNetworks: [10.0.0.0/8]
  rules:
    - { who: ["*"], repositories: ["docker.io/**"], actions: [pull] }
`);
    assert.deepEqual(printedFaults(result), []);
    assert.deepEqual(printedWarnings(result), []);
    assert.ok(result.ok);
    const { path } = folder;
    assert.deepEqual(result.config.tls, {
      certificateFile: `${path}/tls.crt`,
      keyFile: `${path}/tls.key`,
      clientCaFile: `${path}/ca.crt`,
    });
    assert.deepEqual(result.config.access, {
      htpasswdFile: `${path}/htpasswd`,
      tokenServer: {
        realm: "https://a/t",
        service: "s",
        issuer: "i",
        keys: { kind: "certificates", file: `${path}/tls.crt` },
      },
      anonymous: "pull",
      anonymousNetworks: ["10.0.0.0/8"],
      rules: [
        { who: ["*"], repositories: ["docker.io/**"], actions: ["pull"] },
      ],
    });
    for (const name of ["tls.crt", "tls.key", "ca.crt", "htpasswd"]) {
      assert.ok(result.sources.files.includes(`${path}/${name}`), name);
    }
    const again = await folder.loadText(
      JSON.stringify(describeConfig(result.config)),
    );
    assert.ok(again.ok);
    assert.deepEqual(again.config.tls, result.config.tls);
    assert.deepEqual(again.config.access, result.config.access);
  });

  void it("count as absent if every text in them is empty", async (test) => {
    const folder = await furnished(test);
    const result = await folder.loadText(`
tls: { certificateFile: "", keyFile: "", clientCaFile: "" }
access:
  htpasswdFile: ""
  tokenServer: { realm: "", service: "", issuer: "", jwksFile: "", certificateFile: "" }
`);
    assert.deepEqual(printedFaults(result), []);
    assert.ok(result.ok);
    assert.equal(result.config.tls, undefined);
    assert.equal(result.config.access?.htpasswdFile, undefined);
    assert.equal(result.config.access?.tokenServer, undefined);
  });

  void it("resolve paths of the environment against the current folder", async (test) => {
    const folder = await furnished(test);
    await folder.write("etc/c.yaml", "offline: true\n");
    const result = await folder.load({
      configFile: "etc/c.yaml",
      env: {
        ENTREPOT_TLS__CERTIFICATE_FILE: "tls.crt",
        ENTREPOT_TLS__KEY_FILE: "tls.key",
        ENTREPOT_ACCESS__HTPASSWD_FILE: "htpasswd",
        ENTREPOT_ACCESS__ANONYMOUS: "none",
      },
    });
    assert.deepEqual(printedFaults(result), []);
    assert.ok(result.ok);
    assert.equal(result.config.tls?.keyFile, `${folder.path}/tls.key`);
    assert.equal(result.config.access?.anonymous, "none");
  });

  const faults: readonly (readonly [string, string, RegExp])[] = [
    [
      "a certificate without its key",
      "tls: { certificateFile: tls.crt }",
      /tls\.keyFile: got no value; expected both certificateFile and keyFile/,
    ],
    [
      "the key of another certificate",
      "tls: { certificateFile: tls.crt, keyFile: other.key }",
      /tls\.keyFile: got .*other\.key \(the key of another certificate\);/,
    ],
    [
      "a key where a certificate belongs",
      "tls: { certificateFile: tls.key, keyFile: tls.key }",
      /tls\.certificateFile: got .* \(no certificates\);/,
    ],
    [
      "files that are not there",
      "tls: { certificateFile: a, keyFile: b, clientCaFile: c }",
      /certificateFile: .*a \(no such file\)[^]*clientCaFile: .*c \(no such file\)[^]*keyFile: .*b \(no such file\)/,
    ],
    [
      "a mirror from which no client can pull",
      "access: { anonymous: none }",
      /access\.anonymous: got none without any users, which lets no client pull;/,
    ],
    [
      "a hash that is not bcrypt",
      "access: { htpasswdFile: tls.crt }",
      /access\.htpasswdFile: .*line 1: a line without a user or a hash/,
    ],
    [
      "half a token server",
      "access: { tokenServer: { realm: https://a/t } }",
      /issuer: got no value[^]*service: got no value[^]*tokenServer: got neither jwksFile nor certificateFile/,
    ],
    [
      "two sets of keys",
      `access: { tokenServer: { ${TOKEN_SERVER}, jwksFile: k } }`,
      /tokenServer: got both jwksFile and certificateFile/,
    ],
    [
      "invalid keys",
      `access: { tokenServer: { ${TOKEN_SERVER.replace("tls.crt", "tls.key")} } }`,
      /tokenServer\.certificateFile: got .* \(no certificates\);/,
    ],
    [
      "a realm that is not a URL",
      `access: { tokenServer: { ${TOKEN_SERVER.replace("https:", "ftp:")} } }`,
      /tokenServer\.realm: got "ftp:\/\/a\/t"; expected an absolute http or https URL/,
    ],
    [
      "invalid networks",
      'access: { anonymousNetworks: [10.0.0.0/33, "::/129", 10.0.0, x] }',
      /anonymousNetworks\[0\][^]*\[1\][^]*\[2\][^]*\[3\]/,
    ],
    [
      "a rule about a tag",
      'access: { rules: [{ who: ["*"], repositories: ["docker.io/a:1"], actions: [pull] }] }',
      /repositories\[0\]: .*; expected a pattern of repositories, without a tag/,
    ],
    [
      "a rule with empty lists and an unknown action",
      "access: { rules: [{ who: [], repositories: [], actions: [read] }] }",
      /rules\[0\]\.actions\[0\][^]*rules\[0\]\.repositories[^]*rules\[0\]\.who/,
    ],
    [
      "a user with a password in a rule, without showing it",
      'access: { rules: [{ who: ["al:canary", "al:canary"], repositories: [a], actions: [pull] }] }',
      /rules\[0\]\.who\[0\]: got a text; expected a user's name[^]*rules\[0\]\.who\[1\]: got a text/,
    ],
    [
      "a rule without a part",
      'access: { rules: [{ who: ["*"] }] }',
      /rules\[0\]\.actions: got no value[^]*rules\[0\]\.repositories: got no value/,
    ],
  ];
  for (const [name, text, expected] of faults) {
    void it(`reject ${name}`, async (test) => {
      const folder = await furnished(test);
      const printed = printedFaults(await folder.loadText(text)).sort();
      assert.match(printed.join("\n"), expected);
      assert.doesNotMatch(printed.join("\n"), /PRIVATE KEY|\$2b|canary/);
    });
  }

  const warnings: readonly (readonly [string, string, RegExp])[] = [
    [
      "users that are never asked for a password",
      "access: { htpasswdFile: htpasswd }",
      /access\.htpasswdFile: got users, who may push, while every client may pull everything without a password/,
    ],
    [
      "rules for users that are never asked",
      'access: { htpasswdFile: htpasswd, rules: [{ who: ["*"], repositories: [a], actions: [pull] }, { who: [alice], repositories: [b], actions: [pull] }] }',
      /access\.rules\[1\]\.who: got users while every client may pull without a password and none is asked for; expected anonymous: none/,
    ],
    [
      "a token server without TLS",
      `access: { anonymous: none, tokenServer: { ${TOKEN_SERVER.replace("https:", "http:")} } }`,
      /tokenServer\.realm: got an http URL/,
    ],
  ];
  for (const [name, text, expected] of warnings) {
    void it(`warn of ${name}`, async (test) => {
      const folder = await furnished(test);
      const result = await folder.loadText(text);
      assert.deepEqual(printedFaults(result), []);
      const printed = printedWarnings(result);
      assert.equal(printed.length, 1, printed.join("\n"));
      assert.match(printed[0] ?? "", expected);
    });
  }

  void it("cause no warning if users must authenticate", async (test) => {
    const folder = await furnished(test);
    for (const text of [
      "access: { htpasswdFile: htpasswd, anonymous: none }",
      "access: { htpasswdFile: htpasswd, anonymousNetworks: [10.0.0.0/8] }",
    ]) {
      const result = await folder.loadText(text);
      assert.deepEqual(
        [...printedFaults(result), ...printedWarnings(result)],
        [],
      );
    }
  });

  void it("reject a key that other users may read, and warn of such an htpasswd file", async (test) => {
    const folder = await furnished(test);
    await folder.write("htpasswd", htpasswdText({ alice: "pw" }), 0o644);
    await folder.write("tls.key", PAIR.key, 0o640);
    const text =
      "tls: { certificateFile: tls.crt, keyFile: tls.key }\naccess: { htpasswdFile: htpasswd, anonymous: none }";
    const result = await folder.loadText(text);
    assert.deepEqual(printedFaults(result), []);
    assert.match(
      printedWarnings(result).join("\n"),
      /access\.htpasswdFile: .*password hashes that every user of this machine may read/,
    );
    await folder.write("htpasswd", htpasswdText({ alice: "pw" }), 0o666);
    await folder.write("tls.key", PAIR.key, 0o644);
    assert.match(
      printedFaults(await folder.loadText(text)).join("\n"),
      /tls\.keyFile: .*mode 0644, readable by every user .*; run chmod 0600[^]*htpasswdFile: .*mode 0666, writable by every user .*; run chmod o-w /,
    );
  });
});

void describe("a file of users", () => {
  const HASH = `$2y$10$${"a".repeat(53)}`;
  void it("has one line per user, and comments", () => {
    const parsed = parseHtpasswd(
      `# users\n\nalice:${HASH}\r\nb b:${HASH.replace("$2y", "$2a")}\n  \n__proto__:${HASH}`,
    );
    assert.ok(parsed.ok);
    assert.deepEqual([...parsed.hashes.keys()], ["alice", "b b", "__proto__"]);
  });

  const refused: readonly (readonly [string, string])[] = [
    ["alice", "a line without a user or a hash"],
    [`:${HASH}`, "a line without a user or a hash"],
    ["alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "a hash that is not bcrypt"],
    ["alice:$apr1$x$y", "a hash that is not bcrypt"],
    ["alice:plain", "a hash that is not bcrypt"],
    [`alice:${HASH}x`, "a hash that is not bcrypt"],
    [`alice:${HASH.replace("$10$", "$15$")}`, "bcrypt of cost 15"],
    [`alice:${HASH.replace("$10$", "$31$")}`, "bcrypt of cost 31"],
    [`alice:${HASH.replace("$10$", "$03$")}`, "bcrypt of cost 3"],
    [`a:${HASH}\na:${HASH}`, "a user twice"],
  ];
  for (const [text, seen] of refused) {
    void it(`is rejected for ${seen}: ${JSON.stringify(text.slice(0, 16))}`, () => {
      const parsed = parseHtpasswd(`\n${text}\n`);
      assert.ok(!parsed.ok);
      assert.equal(parsed.seen, seen);
      assert.equal(parsed.line, text.includes("\n") ? 3 : 2);
    });
  }
});
