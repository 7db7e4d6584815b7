import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import { MARK } from "../../../../../src/cli/setup/clients/client-setup.ts";
import type { AfterTest } from "../../../../support/after-test.ts";
import { createCertificateAuthority } from "../../../../support/certificate-authority.ts";
import { ClientConfigFolder } from "../../../../support/client-config.ts";
import {
  CLIENT_FILES,
  EXAMPLE_ADDRESS,
  listClientFiles,
} from "../../../../support/engines/client-files.ts";
import {
  parseSimpleToml,
  tomlToJson,
} from "../../../../support/simple-toml.ts";

const TWO = {
  listen: "0.0.0.0:5000",
  upstreams: { "docker.io": { default: true }, "quay.io": {} },
};
const AT = ["--address", EXAMPLE_ADDRESS];

/** The engine that each file of deploy/clients is for, and its path there. */
const SAMPLES: Readonly<Record<string, readonly [string, string]>> = {
  "docker/daemon.json": ["docker", "/etc/docker/daemon.json"],
  "containers/registries.conf": [
    "podman",
    "/etc/containers/registries.conf.d/entrepot.conf",
  ],
  "k3s/registries.yaml": ["k3s", "/etc/rancher/k3s/registries.yaml"],
  "buildkit/buildkitd.toml": ["buildkit", "/etc/buildkit/buildkitd.toml"],
  "containerd/config.toml": ["containerd", "/etc/containerd/config.toml"],
  ...Object.fromEntries(
    ["docker.io", "_default", "mirror.internal_5000_"].map((name) => [
      `containerd/certs.d/${name}/hosts.toml`,
      ["containerd", `/etc/containerd/certs.d/${name}/hosts.toml`],
    ]),
  ),
};

function parseFile(path: string, text: string): unknown {
  switch (extname(path)) {
    case ".json":
      return JSON.parse(text);
    case ".yaml":
      return parseYaml(text);
    case ".crt":
      return new X509Certificate(text).subject;
    default:
      return tomlToJson(parseSimpleToml(text));
  }
}

/** Parses what an engine reads. */
async function parsed(
  folder: ClientConfigFolder,
  ...args: readonly string[]
): Promise<Readonly<Record<string, unknown>>> {
  const files = Object.entries(await folder.files(...args));
  return Object.fromEntries(
    files.map(([path, text]) => [path, parseFile(path, text)]),
  );
}

void describe("entrepot client-config", () => {
  void it("prints every file of deploy/clients, marked where comments are possible", async (test) => {
    assert.deepEqual(await listClientFiles(), Object.keys(SAMPLES).sort());
    const folder = await ClientConfigFolder.create(test, TWO);
    for (const [sample, [engine, path]] of Object.entries(SAMPLES)) {
      const text = await readFile(join(CLIENT_FILES, sample), "utf8");
      const files = await folder.files(engine, ...AT);
      const isMarked = !/daemon\.json|config\.toml/.test(path);
      assert.equal(files[path], isMarked ? `${MARK}\n${text}` : text, path);
    }
  });

  void it("prints each file under a line with its path, and what to do then on standard error", async (test) => {
    const folder = await ClientConfigFolder.create(test, TWO);
    const { code, stdout, stderr } = await folder.run("docker", ...AT);
    assert.equal(code, 0);
    const text = await readFile(join(CLIENT_FILES, "docker/daemon.json"));
    assert.equal(stdout, `==> /etc/docker/daemon.json <==\n${text.toString()}`);
    assert.match(stderr, /^then: systemctl reload docker$/m);
    assert.match(stderr, /mirror\.internal:5000\/quay\.io\/NAME/);
    assert.match(
      stderr,
      /images hosted here are mirror\.internal:5000\/local\/NAME:TAG/,
    );
  });

  void it("prints the same for CRI-O as for Podman, and for RKE2 as for k3s", async (test) => {
    const folder = await ClientConfigFolder.create(test, TWO);
    assert.deepEqual(
      await folder.files("cri-o", ...AT),
      await folder.files("podman", ...AT),
    );
    const { stderr } = await folder.run("cri-o", ...AT);
    assert.match(stderr, /^then: systemctl reload crio$/m);
    const k3s = await folder.files("k3s", ...AT);
    assert.deepEqual(
      Object.entries(await folder.files("rke2", ...AT)),
      Object.entries(k3s).map(([path, text]) => [
        path.replace("/k3s/", "/rke2/"),
        text,
      ]),
    );
  });

  void it("takes the registries of --upstream alone, by name, alias or template", async (test) => {
    const folder = await ClientConfigFolder.create(test, {
      ...TWO,
      upstreams: {
        ...TWO.upstreams,
        "registry.corp:5000": {
          aliases: ["corp"],
          endpoints: ["http://registry.corp:5000"],
        },
        "*.example": {},
      },
    });
    const chosen = [
      "--upstream",
      "quay.io",
      "--upstream",
      "corp",
      "--upstream",
      "a.example",
    ];
    const own = { capabilities: ["pull", "resolve"] };
    const host = { [`http://${EXAMPLE_ADDRESS}`]: own };
    const files = await parsed(folder, "containerd", ...AT, ...chosen);
    const folders = Object.entries(files).filter(([path]) =>
      path.includes("/certs.d/"),
    );
    assert.deepEqual(folders.slice(0, 3), [
      [
        "/etc/containerd/certs.d/quay.io/hosts.toml",
        { server: "https://quay.io", host },
      ],
      [
        "/etc/containerd/certs.d/registry.corp_5000_/hosts.toml",
        { server: "http://registry.corp:5000", host },
      ],
      [
        "/etc/containerd/certs.d/a.example/hosts.toml",
        { server: "https://a.example", host },
      ],
    ]);
    assert.equal(folders.length, 4);
    const podman = await parsed(folder, "podman", ...AT, ...chosen);
    assert.deepEqual(Object.values(podman), [
      {
        registry: [
          ...[
            ["quay.io", "quay.io", {}],
            ["registry.corp:5000", "corp", { insecure: true }],
            ["a.example", "a.example", {}],
          ].map(([name, path, plain]) => ({
            prefix: name,
            location: name,
            ...(plain as object),
            mirror: [
              {
                location: `${EXAMPLE_ADDRESS}/${path as string}`,
                insecure: true,
              },
            ],
          })),
          { location: EXAMPLE_ADDRESS, insecure: true },
        ],
      },
    ]);
    const docker = await parsed(folder, "docker", ...AT, ...chosen);
    assert.deepEqual(Object.values(docker), [
      { "insecure-registries": [EXAMPLE_ADDRESS] },
    ]);
    const { code, stderr } = await folder.run("k3s", "--upstream", "ghcr.io");
    assert.equal(code, 2);
    assert.match(
      stderr,
      /^entrepot: --upstream: got "ghcr\.io"; expected one of docker\.io, quay\.io, registry\.corp:5000, \*\.example$/m,
    );
  });

  void it("reaches a registry with a port by ?ns= where an engine sends it, and names it where none does", async (test) => {
    const folder = await ClientConfigFolder.create(test, {
      ...TWO,
      upstreams: { "docker.io": { default: true }, "registry.corp:5000": {} },
    });
    const buildkit = await parsed(folder, "buildkit", ...AT);
    assert.deepEqual(Object.values(buildkit), [
      {
        registry: {
          "docker.io": { mirrors: [`${EXAMPLE_ADDRESS}/docker.io`] },
          "registry.corp:5000": { mirrors: [EXAMPLE_ADDRESS] },
          [EXAMPLE_ADDRESS]: { http: true },
        },
      },
    ]);
    const { stdout, stderr } = await folder.run("podman", ...AT);
    assert.doesNotMatch(stdout, /registry\.corp/);
    assert.match(stderr, /registry\.corp:5000 is left out.+ alias/);
  });

  void it("covers templates by the engines' own catch-all, and names them where there is none", async (test) => {
    const folder = await ClientConfigFolder.create(test, {
      ...TWO,
      upstreams: { "docker.io": { default: true }, "*": {} },
    });
    const k3s = await parsed(folder, "k3s", ...AT);
    const endpoint = [`http://${EXAMPLE_ADDRESS}`];
    assert.deepEqual(Object.values(k3s), [
      {
        mirrors: {
          "docker.io": { endpoint },
          "*": { endpoint },
          [EXAMPLE_ADDRESS]: { endpoint },
        },
      },
    ]);
    for (const engine of ["podman", "buildkit"]) {
      const { stderr } = await folder.run(engine, ...AT);
      assert.match(stderr, /the template \* are left out/);
    }
  });

  void it("writes a set-up without fall-back with --only, for engines that have one", async (test) => {
    const folder = await ClientConfigFolder.create(test, TWO);
    const podman = await parsed(folder, "podman", ...AT, "--only");
    assert.deepEqual(Object.values(podman), [
      {
        registry: [
          ...["docker.io", "quay.io"].map((name) => ({
            prefix: name,
            location: `${EXAMPLE_ADDRESS}/${name}`,
            insecure: true,
          })),
          { location: EXAMPLE_ADDRESS, insecure: true },
        ],
      },
    ]);
    const containerd = await parsed(folder, "containerd", ...AT, "--only");
    for (const name of ["docker.io", "_default"]) {
      assert.deepEqual(
        containerd[`/etc/containerd/certs.d/${name}/hosts.toml`],
        {
          server: `http://${EXAMPLE_ADDRESS}`,
          capabilities: ["pull", "resolve"],
          host: {
            [`http://${EXAMPLE_ADDRESS}`]: {
              capabilities: ["pull", "resolve"],
            },
          },
        },
      );
    }
    const rke2 = await parsed(folder, "rke2", ...AT, "--only");
    assert.deepEqual(rke2["/etc/rancher/rke2/config.yaml.d/entrepot.yaml"], {
      "disable-default-registry-endpoint": true,
    });
    for (const engine of ["docker", "buildkit"]) {
      const { code, stdout, stderr } = await folder.run(engine, "--only");
      assert.deepEqual([code, stdout], [2, ""]);
      assert.match(
        stderr,
        new RegExp(
          `--only: got ${engine}, .+; expected one of podman, cri-o, containerd, k3s, rke2$`,
          "m",
        ),
      );
    }
  });

  void it("routes hosted names that engines read as registries here", async (test) => {
    const folder = await ClientConfigFolder.create(test, {
      ...TWO,
      hosted: { "registry.corp": {}, local: { default: true } },
      upstreams: { "docker.io": { hostnames: ["hub.internal"] } },
    });
    const url = `http://${EXAMPLE_ADDRESS}`;
    const containerd = await parsed(folder, "containerd", ...AT);
    assert.deepEqual(
      containerd["/etc/containerd/certs.d/registry.corp/hosts.toml"],
      {
        server: url,
        capabilities: ["pull", "resolve"],
        host: { [url]: { capabilities: ["pull", "resolve"] } },
      },
    );
    const [podman] = Object.values(await parsed(folder, "podman", ...AT));
    assert.deepEqual((podman as { registry: unknown[] }).registry[1], {
      prefix: "registry.corp",
      location: `${EXAMPLE_ADDRESS}/registry.corp`,
      insecure: true,
    });
    const { stderr: notes } = await folder.run("podman", ...AT);
    assert.match(
      notes,
      /map registry\.corp for pulls only; push to mirror\.internal:5000\/registry\.corp\/NAME:TAG/,
    );
    // Names without a registry are hosted here, so Docker Hub has a host of its own.
    const docker = await parsed(folder, "docker", ...AT);
    assert.deepEqual(Object.values(docker), [
      {
        "registry-mirrors": ["http://hub.internal:5000"],
        "insecure-registries": [EXAMPLE_ADDRESS, "hub.internal:5000"],
      },
    ]);
    const { stderr } = await folder.run("docker", ...AT);
    assert.match(
      stderr,
      /images hosted here are mirror\.internal:5000\/NAME:TAG/,
    );
  });

  void it("gives Docker a path if Docker Hub is neither the default nor has a host name, and warns", async (test) => {
    const folder = await ClientConfigFolder.create(test, {
      ...TWO,
      hosted: { local: { default: true } },
      upstreams: { "docker.io": {} },
    });
    const [docker] = Object.values(await parsed(folder, "docker", ...AT));
    assert.deepEqual(docker, {
      "registry-mirrors": [`http://${EXAMPLE_ADDRESS}/docker.io`],
      "insecure-registries": [EXAMPLE_ADDRESS],
    });
    const { stderr } = await folder.run("docker", ...AT);
    assert.match(stderr, /needs Docker 25 or later/);
  });

  void it("refuses a wrong engine, address and combination of options", async (test) => {
    const folder = await ClientConfigFolder.create(test, TWO);
    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      [
        ["dockerd"],
        /'dockerd' is invalid for argument 'engine'\. Allowed choices are docker, podman, cri-o,/,
      ],
      [
        ["docker", "--address", "a b"],
        /--address: got "a b"; expected HOST:PORT/,
      ],
      [["docker", "--force"], /got --force without --install/],
      [["docker", "--root", "x"], /got --root without --install/],
      [["docker", "--install", "--json"], /got --json with --install/],
      [
        ["docker", "--ca-file", "no.crt"],
        /--ca-file: got .+no\.crt \(no such file\)/,
      ],
    ];
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await folder.run(...args);
      assert.deepEqual([code, stdout], [2, ""], args.join(" "));
      assert.match(stderr, message);
    }
    await folder.write("entrepot.yaml", "listen: 5\n");
    const { code, stderr } = await folder.run("docker");
    assert.equal(code, 2);
    assert.match(stderr, /entrepot\.yaml:1: listen: got 5/);
  });
});

async function secured(
  test: AfterTest,
  config: Readonly<Record<string, unknown>> = {},
) {
  const authority = createCertificateAuthority("Mirror authority");
  const pair = authority.issue({ hosts: ["mirror.internal", "198.18.0.1"] });
  const folder = await ClientConfigFolder.create(test, {
    ...TWO,
    tls: { certificateFile: "tls.crt", keyFile: "tls.key" },
    ...config,
  });
  await folder.write("tls.crt", pair.cert + authority.cert);
  await folder.write("tls.key", pair.key);
  return { folder, authority, pair };
}

void describe("entrepot client-config of a mirror with TLS", () => {
  void it("gives every engine the authority at its place, and https", async (test) => {
    const { folder } = await secured(test);
    const certificates: Readonly<Record<string, readonly string[]>> = {
      docker: ["/etc/docker/certs.d/mirror.internal:5000/ca.crt"],
      podman: ["/etc/containers/certs.d/mirror.internal:5000/ca.crt"],
      "cri-o": ["/etc/containers/certs.d/mirror.internal:5000/ca.crt"],
      containerd: ["/etc/containerd/entrepot.crt"],
      k3s: ["/etc/rancher/k3s/entrepot.crt"],
      rke2: ["/etc/rancher/rke2/entrepot.crt"],
      buildkit: ["/etc/buildkit/entrepot.crt"],
    };
    for (const [engine, wanted] of Object.entries(certificates)) {
      // The name is that of the certificate, since listen has none.
      const files = await parsed(folder, engine);
      const found = Object.keys(files).filter((path) => path.endsWith(".crt"));
      assert.deepEqual(found, wanted);
      for (const path of found)
        assert.equal(files[path], "CN=Mirror authority");
      const { stdout } = await folder.run(engine);
      assert.doesNotMatch(stdout, /http:|insecure|PRIVATE KEY/);
    }
  });

  void it("names the certificate's file in the files of containerd, k3s and BuildKit", async (test) => {
    const { folder } = await secured(test);
    const url = `https://${EXAMPLE_ADDRESS}`;
    const ca = "/etc/containerd/entrepot.crt";
    const containerd = await parsed(folder, "containerd");
    assert.deepEqual(
      containerd["/etc/containerd/certs.d/_default/hosts.toml"],
      {
        host: { [url]: { capabilities: ["pull", "resolve"], ca } },
      },
    );
    assert.deepEqual(
      containerd["/etc/containerd/certs.d/mirror.internal_5000_/hosts.toml"],
      {
        server: url,
        ca,
        host: { [url]: { capabilities: ["pull", "resolve", "push"], ca } },
      },
    );
    const only = await parsed(folder, "containerd", "--only");
    assert.deepEqual(only["/etc/containerd/certs.d/docker.io/hosts.toml"], {
      server: url,
      capabilities: ["pull", "resolve"],
      ca,
      host: { [url]: { capabilities: ["pull", "resolve"], ca } },
    });
    const k3s = await parsed(folder, "k3s");
    assert.deepEqual(
      (k3s["/etc/rancher/k3s/registries.yaml"] as Record<string, unknown>)[
        "configs"
      ],
      {
        [EXAMPLE_ADDRESS]: {
          tls: { ca_file: "/etc/rancher/k3s/entrepot.crt" },
        },
      },
    );
    const buildkit = await parsed(folder, "buildkit");
    const { registry } = buildkit["/etc/buildkit/buildkitd.toml"] as {
      registry: Record<string, unknown>;
    };
    assert.deepEqual(registry[EXAMPLE_ADDRESS], {
      ca: ["/etc/buildkit/entrepot.crt"],
    });
  });

  void it("writes a self-signed certificate itself, and asks for an authority that the file lacks", async (test) => {
    const { folder, authority, pair } = await secured(test);
    await folder.write("tls.crt", pair.cert);
    const { stdout, stderr } = await folder.run("docker");
    assert.doesNotMatch(stdout, /ca\.crt/);
    assert.match(stderr, /issued by CN=Mirror authority, .+--ca-file FILE/);
    await folder.write("authority.crt", authority.cert);
    const files = await parsed(folder, "docker", "--ca-file", "authority.crt");
    assert.equal(
      files["/etc/docker/certs.d/mirror.internal:5000/ca.crt"],
      "CN=Mirror authority",
    );
  });

  void it("warns of a name that the certificate does not have", async (test) => {
    const { folder } = await secured(test);
    for (const name of ["mirror.internal", "198.18.0.1"]) {
      const { stderr } = await folder.run("k3s", "--address", `${name}:5000`);
      assert.doesNotMatch(stderr, /is not valid/);
    }
    const { stderr } = await folder.run(
      "k3s",
      "--address",
      "other.internal:5000",
    );
    assert.match(
      stderr,
      /not valid for other\.internal: it names DNS:mirror\.internal, IP Address:198\.18\.0\.1/,
    );
  });

  void it("leaves the mirror's certificate out if a proxy in front of it is named", async (test) => {
    const folder = await ClientConfigFolder.create(test, TWO);
    const files = await parsed(
      folder,
      "docker",
      "--address",
      "https://mirror.corp",
    );
    assert.deepEqual(files, {
      "/etc/docker/daemon.json": {
        "registry-mirrors": ["https://mirror.corp"],
      },
    });
    const { folder: tls } = await secured(test);
    const plain = await parsed(
      tls,
      "docker",
      "--address",
      "http://mirror.corp:80",
    );
    assert.deepEqual(plain, {
      "/etc/docker/daemon.json": {
        "registry-mirrors": ["http://mirror.corp:80"],
        "insecure-registries": ["mirror.corp:80"],
      },
    });
  });

  void it("has places for a client certificate if the mirror requires one, and names the log-in if it requires that", async (test) => {
    const { folder, authority } = await secured(test, {
      tls: {
        certificateFile: "tls.crt",
        keyFile: "tls.key",
        clientCaFile: "clients.crt",
      },
    });
    await folder.write("clients.crt", authority.cert);
    const containerd = await parsed(folder, "containerd");
    const { host } = containerd[
      "/etc/containerd/certs.d/docker.io/hosts.toml"
    ] as {
      host: Record<string, { client: unknown }>;
    };
    assert.deepEqual(host[`https://${EXAMPLE_ADDRESS}`]?.client, [
      [
        "/etc/containerd/entrepot-client.crt",
        "/etc/containerd/entrepot-client.key",
      ],
    ]);
    const buildkit = await parsed(folder, "buildkit");
    const { registry } = buildkit["/etc/buildkit/buildkitd.toml"] as {
      registry: Record<string, { keypair: unknown }>;
    };
    assert.deepEqual(registry[EXAMPLE_ADDRESS]?.keypair, [
      {
        key: "/etc/buildkit/entrepot-client.key",
        cert: "/etc/buildkit/entrepot-client.crt",
      },
    ]);
    for (const engine of ["docker", "podman", "cri-o", "k3s", "rke2"]) {
      const { stderr } = await folder.run(engine);
      assert.match(stderr, /requires a client certificate: \//, engine);
    }
    const { folder: guarded } = await secured(test, {
      access: { anonymous: "none", htpasswdFile: "htpasswd" },
    });
    await guarded.write("htpasswd", "");
    for (const engine of [
      "docker",
      "podman",
      "containerd",
      "k3s",
      "buildkit",
    ]) {
      const { code, stderr } = await guarded.run(engine);
      assert.equal(code, 0, stderr);
      assert.match(stderr, /requires a log-in/, engine);
    }
  });
});
