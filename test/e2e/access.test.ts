import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { before, describe, it, type TestContext } from "node:test";
import {
  basic,
  htpasswdText,
  startTokenIssuer,
  type TokenIssuer,
} from "../support/access.ts";
import {
  type AfterTest,
  afterSuite,
  releaseAfter,
} from "../support/after-test.ts";
import { createCertificateAuthority } from "../support/certificate-authority.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import {
  publishBusyboxImages,
  type PublishedImages,
} from "../support/engines/busybox-images.ts";
import { Containerd } from "../support/engines/containerd.ts";
import { Dockerd } from "../support/engines/dockerd.ts";
import { requireCommands } from "../support/engines/engine.ts";
import {
  takeOwnAddress,
  trustAuthority,
} from "../support/engines/own-address.ts";
import { Podman } from "../support/engines/podman.ts";
import { Skopeo } from "../support/engines/skopeo.ts";
import { RealRegistry } from "../support/real-registry.ts";
import { refusal, runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Parts of the engines' messages about a log-in and a pull. */
interface Client {
  /** Throws its output if it fails. */
  login(user: string, password: string): Promise<string>;
  logout(): Promise<unknown>;
  /** Pulls by the mirror's own name. */
  pull(): Promise<unknown>;
}

interface Guarded {
  readonly mirror: ChildMirror;
  /** `198.18.0.1:PORT` */
  readonly host: string;
  readonly authority: string;
  setUsers(users: Readonly<Record<string, string>>): Promise<void>;
  setCertificate(notAfter?: Date): Promise<void>;
  /** Replaces the certificate and key, as PEM. */
  usePair(certificate: string, key: string): Promise<void>;
}

const USERS = { alice: "right horse", bob: "bob's" };
const DAY_MS = 86_400_000;

/** A mirror with TLS and users, at an address for which engines verify certificates. */
async function startGuarded(
  test: TestContext,
  upstream: RealRegistry,
  access: Readonly<Record<string, unknown>> = {},
): Promise<Guarded> {
  const dir = await tempDir(test, "guarded-");
  const address = await takeOwnAddress(test);
  const authority = createCertificateAuthority();
  const write = async (name: string, text: string): Promise<void> => {
    await writeFile(join(dir, name), text);
    await chmod(join(dir, name), 0o600);
  };
  const writePair = async (notAfter?: Date): Promise<void> => {
    const options = { hosts: [address], notBefore: new Date(0) };
    const pair = authority.issue(
      notAfter === undefined ? options : { ...options, notAfter },
    );
    await write("tls.crt", pair.cert);
    await write("tls.key", pair.key);
  };
  await writePair();
  await write("htpasswd", htpasswdText(USERS));
  const mirror = await ChildMirror.start(test, {
    dir,
    config: {
      listen: `${address}:0`,
      tls: { certificateFile: "tls.crt", keyFile: "tls.key" },
      access: { htpasswdFile: "htpasswd", anonymous: "none", ...access },
      upstreams: {
        "docker.io": { default: true, endpoints: [upstream.origin] },
      },
    },
  });
  test.after(() => {
    if (!test.passed) test.diagnostic(mirror.child.output());
  });
  let reloads = 0;
  /** Resolves when the mirror has logged that it reloaded a file. */
  const untilReloaded = async (): Promise<void> => {
    reloads += 1;
    let seen = 0;
    await mirror.child.line((line) => {
      if (/reloaded (a|the) changed/.test(line)) seen += 1;
      return seen >= reloads || undefined;
    });
  };
  return {
    mirror,
    host: mirror.host,
    authority: authority.cert,
    setUsers: async (users) => {
      await write("htpasswd", htpasswdText(users));
      await untilReloaded();
    },
    usePair: async (certificate, key) => {
      await write("tls.crt", certificate);
      await write("tls.key", key);
      await untilReloaded();
    },
    setCertificate: async (notAfter) => {
      await writePair(notAfter);
      await untilReloaded();
    },
  };
}

interface ClientCase {
  readonly name: string;
  readonly certificates: "docker" | "containers";
  readonly start: (test: AfterTest, guarded: Guarded) => Promise<Client>;
  /** The text that its user reads. */
  readonly says: {
    readonly untrusted: RegExp;
    readonly loggedIn: RegExp;
    readonly wrongPassword: RegExp;
    readonly notLoggedIn: RegExp;
    readonly expired: RegExp;
    readonly revoked: RegExp;
  };
}

const IMAGE = "docker.io/library/bb:1";

const CLIENTS: readonly ClientCase[] = [
  {
    name: "dockerd",
    certificates: "docker",
    start: async (test, { host }) => {
      const dockerd = await Dockerd.start(test, { host, isTls: true });
      return {
        login: (user, password) =>
          dockerd.docker("login", "-u", user, "-p", password, host),
        logout: () => dockerd.docker("logout", host),
        pull: () => dockerd.docker("pull", "--quiet", `${host}/${IMAGE}`),
      };
    },
    says: {
      untrusted: /x509: certificate signed by unknown authority/,
      loggedIn: /Login Succeeded/,
      wrongPassword:
        /login attempt to https:\/\/\S+\/v2\/ failed with status: 401 Unauthorized/,
      notLoggedIn: /no basic auth credentials/,
      expired: /x509: certificate has expired or is not yet valid/,
      revoked: /Error response from daemon: unauthorized/,
    },
  },
  {
    name: "podman",
    certificates: "containers",
    start: async (test, { host }) => {
      const podman = await Podman.start(test, { host, isTls: true });
      return {
        login: (user, password) =>
          podman.podman("login", "-u", user, "-p", password, host),
        logout: () => podman.podman("logout", host),
        pull: () => podman.podman("pull", "--quiet", `${host}/${IMAGE}`),
      };
    },
    says: {
      untrusted: /x509: certificate signed by unknown authority/,
      loggedIn: /Login Succeeded!/,
      wrongPassword: /invalid username\/password/,
      notLoggedIn: /reading manifest 1 in \S+: unauthorized/,
      expired: /x509: certificate has expired or is not yet valid/,
      revoked: /reading manifest 1 in \S+: unauthorized/,
    },
  },
  {
    name: "skopeo",
    certificates: "containers",
    start: async (test, { host }) => {
      const skopeo = await Skopeo.start(test, { host, isTls: true });
      const auth = `--authfile=${join(await tempDir(test), "auth.json")}`;
      return {
        login: (user, password) =>
          skopeo.skopeo("login", auth, "-u", user, "-p", password, host),
        logout: () => skopeo.skopeo("logout", auth, host),
        pull: () => skopeo.skopeo("inspect", auth, `docker://${host}/${IMAGE}`),
      };
    },
    says: {
      untrusted: /x509: certificate signed by unknown authority/,
      loggedIn: /Login Succeeded!/,
      wrongPassword: /invalid username\/password/,
      notLoggedIn: /reading manifest 1 in \S+: unauthorized/,
      expired: /x509: certificate has expired or is not yet valid/,
      revoked: /reading manifest 1 in \S+: unauthorized/,
    },
  },
];

void describe("a mirror with TLS and users", () => {
  const suite = afterSuite();
  let published: RealRegistry;
  let images: PublishedImages;

  before(async () => {
    await requireCommands([
      "dockerd",
      "docker",
      "podman",
      "buildah",
      "skopeo",
      "docker-registry",
      "ip",
    ]);
    published = await RealRegistry.start(suite);
    images = await publishBusyboxImages(suite, published);
    assert.equal(IMAGE, `docker.io/${images.docker.repository}:1`);
  });

  for (const { name, certificates, start, says } of CLIENTS) {
    void it(`${name} logs in and pulls, and its user reads why where it can't`, async (test) => {
      const guarded = await startGuarded(test, published);
      const { host, authority } = guarded;
      const client = await start(test, guarded);
      const said: string[] = [];
      const isRefused = async (
        what: keyof typeof says,
        work: Promise<unknown>,
      ): Promise<void> => {
        const text = await refusal(work);
        said.push(`${what}: ${text.trim().split("\n").at(-1)}`);
        assert.match(text, says[what]);
      };

      await isRefused("untrusted", client.login("alice", USERS.alice));
      await trustAuthority(test, certificates, host, authority);

      await isRefused("notLoggedIn", client.pull());
      await isRefused("wrongPassword", client.login("alice", "wrong"));
      await isRefused("wrongPassword", client.login("mallory", "right horse"));
      assert.match(await client.login("alice", USERS.alice), says.loggedIn);
      await client.pull();

      await guarded.setUsers({ bob: USERS.bob });
      await isRefused("revoked", client.pull());
      assert.match(await client.login("bob", USERS.bob), says.loggedIn);
      await client.pull();

      await guarded.setCertificate(new Date(Date.now() - DAY_MS));
      await isRefused("expired", client.pull());
      await guarded.setCertificate();
      await client.pull();

      const log = guarded.mirror.child.output();
      for (const secret of [...Object.values(USERS), "wrong"]) {
        assert.ok(!log.includes(`"${secret}"`), secret);
        const encoded = Buffer.from(`alice:${secret}`).toString("base64");
        assert.ok(!log.includes(encoded));
      }
      test.diagnostic(said.join("\n"));
    });
  }

  void it("dockerd pulls Docker Hub's images through it where anonymous clients are let in", async (test) => {
    const guarded = await startGuarded(test, published, {
      anonymous: "pull",
      anonymousNetworks: ["198.18.0.0/16"],
    });
    const { host, authority, mirror } = guarded;
    await trustAuthority(test, "docker", host, authority);
    const dockerd = await Dockerd.start(test, { host, isTls: true });
    await dockerd.docker("pull", "--quiet", IMAGE);
    assert.ok(
      (await requestsOf(mirror, "blob")).every(
        ({ statusCode }) => statusCode === 200,
      ),
    );
    // The mirror requests no password, so the log-in succeeds with any.
    const said = await dockerd.docker("login", "-u", "x", "-p", "y", host);
    assert.match(said, /Login Succeeded/);
  });

  void it("dockerd sends Docker Hub's password to a mirror that requests one; it is refused and not stored", async (test) => {
    const guarded = await startGuarded(test, published);
    const { host, authority, mirror } = guarded;
    await trustAuthority(test, "docker", host, authority);
    const dockerd = await Dockerd.start(test, { host, isTls: true });
    const hub = Buffer.from("hubuser:hub-canary").toString("base64");
    await dockerd.writeClientConfig({
      auths: { "https://index.docker.io/v1/": { auth: hub } },
    });
    await refusal(dockerd.docker("pull", "--quiet", IMAGE));
    const requests = await requestsOf(mirror, "tag");
    assert.ok(requests.every(({ statusCode }) => statusCode === 401));
    const log = mirror.child.output();
    for (const secret of ["hubuser", "hub-canary", hub]) {
      assert.ok(!log.includes(secret), secret);
    }
  });

  void it("podman pulls through it as a mirror with the log-in of the mirror's name", async (test) => {
    const guarded = await startGuarded(test, published);
    const { host, authority, mirror } = guarded;
    await trustAuthority(test, "containers", host, authority);
    const podman = await Podman.start(test, { host, isTls: true });
    await refusal(podman.podman("pull", "--quiet", IMAGE));
    await podman.podman("login", "-u", "alice", "-p", USERS.alice, host);
    await podman.podman("pull", "--quiet", IMAGE);
    const pulled = (await requestsOf(mirror, "blob")).filter(
      ({ user }) => user === "alice",
    );
    assert.ok(pulled.some(({ kind }) => kind === "blob"));
  });

  void it("containerd pulls through it with the authority and the header of its hosts.toml", async (test) => {
    const guarded = await startGuarded(test, published);
    const { host, authority, mirror } = guarded;
    const caFile = join(await tempDir(test, "ca-"), "entrepot.crt");
    await writeFile(caFile, authority);
    const authorization = basic("alice", USERS.alice);
    const containerd = await Containerd.start(test, {
      host,
      isTls: true,
      hostsToml: `  ca = "${caFile}"
  [host."https://${host}".header]
    Authorization = ["${authorization}"]
`,
    });
    await containerd.pull(IMAGE);
    const requests = await requestsOf(mirror, "blob");
    assert.ok(requests.some(({ kind }) => kind === "blob"));
    assert.ok(requests.every(({ user }) => user === "alice"));
    assert.ok(!mirror.child.output().includes(authorization));
  });

  void it("dockerd, podman and skopeo pull with the tokens of a token server", async (test) => {
    const issuer = await startTokenIssuer(test);
    const asked: string[] = [];
    const realm = await startTokenServer(test, issuer, asked);
    const guarded = await startGuarded(test, published, {
      htpasswdFile: "",
      tokenServer: {
        realm,
        service: issuer.config.service,
        issuer: issuer.config.issuer,
        jwksFile: issuer.config.keys.file,
      },
      rules: [
        {
          who: ["alice"],
          repositories: ["docker.io/library/*"],
          actions: ["pull"],
        },
      ],
    });
    const { host, authority, mirror } = guarded;
    await trustAuthority(test, "docker", host, authority);
    await trustAuthority(test, "containers", host, authority);
    for (const { name, start } of CLIENTS) {
      const client = await start(test, guarded);
      await refusal(client.login("alice", "wrong"));
      assert.match(await client.login("alice", USERS.alice), /Login Succeeded/);
      await client.pull();
      const own = (await requestsOf(mirror, "blob")).filter(
        ({ user }) => user === "alice",
      );
      assert.ok(own.length > 0, name);
      await client.logout();
      await refusal(client.pull());
      await client.login("bob", USERS.bob);
      await refusal(client.pull());
    }
    assert.ok(asked.includes("repository:docker.io/library/bb:pull"));
  });

  void it("skopeo and podman believe what `entrepot tls self-signed` wrote", async (test) => {
    const guarded = await startGuarded(test, published, { anonymous: "pull" });
    const { host, mirror } = guarded;
    const out = await tempDir(test, "self-signed-");
    const address = host.slice(0, host.lastIndexOf(":"));
    await runCommand(process.execPath, [
      join(import.meta.dirname, "../../src/main.ts"),
      "tls",
      "self-signed",
      `--host=${address}`,
      `--out=${out}`,
    ]);
    const certificate = await readFile(join(out, "tls.crt"), "utf8");
    await guarded.usePair(
      certificate,
      await readFile(join(out, "tls.key"), "utf8"),
    );
    await trustAuthority(test, "containers", host, certificate);
    const skopeo = await Skopeo.start(test, { host, isTls: true });
    await skopeo.skopeo("inspect", `docker://${host}/${IMAGE}`);
    const podman = await Podman.start(test, { host, isTls: true });
    await podman.podman("pull", "--quiet", IMAGE);
    assert.ok(
      (await requestsOf(mirror, "blob")).some(({ kind }) => kind === "blob"),
    );
  });
});

/** Resolves when such a request is in the log, which is written in batches. */
async function requestsOf(
  mirror: ChildMirror,
  kind: "blob" | "tag",
): Promise<Readonly<Record<string, unknown>>[]> {
  await mirror.child.line((text) =>
    text.includes(`"method":"GET","kind":"${kind}"`) ? true : undefined,
  );
  return mirror.logs.filter(({ msg }) => msg === "request");
}

/** A minimal token server on the loopback: a client with the password gets the requested scopes. */
async function startTokenServer(
  test: AfterTest,
  issuer: TokenIssuer,
  asked: string[],
): Promise<string> {
  const users = new Map<string, string>(Object.entries(USERS));
  const grant = async (url: URL, authorization = ""): Promise<string> => {
    const text = Buffer.from(authorization.slice("Basic ".length), "base64");
    const [user = "", password] = text.toString().split(":");
    if (password === undefined || users.get(user) !== password) return "";
    const scopes = url.searchParams
      .getAll("scope")
      .flatMap((scope) => scope.split(" "));
    asked.push(...scopes);
    const access = scopes.map((scope) => {
      const [type = "", name = "", actions = ""] = scope.split(":");
      return { type, name, actions: actions.split(",") };
    });
    return issuer.sign(access, { sub: user });
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://token");
    void grant(url, request.headers.authorization).then((token) => {
      response.statusCode = token === "" ? 401 : 200;
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(token === "" ? {} : { token }));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return `http://127.0.0.1:${address.port}/token`;
}
