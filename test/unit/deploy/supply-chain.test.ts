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
}

interface Manifest {
  readonly scripts?: Readonly<Record<string, string>>;
}

const lock = JSON.parse(
  await readFile(join(PROJECT, "package-lock.json"), "utf8"),
) as { readonly packages: Readonly<Record<string, LockedPackage>> };

/** What the image and the service carry: neither tools nor the copies of Node.js. */
const shipped = Object.entries(lock.packages).filter(
  ([path, one]) => path !== "" && !one.dev && !one.optional && !one.devOptional,
);

/** What npm runs when a package is installed. */
const INSTALL_SCRIPTS = ["preinstall", "install", "postinstall"];

void describe("what is shipped", () => {
  void it("stays small enough to be looked through", () => {
    assert.ok(shipped.length > 20);
    assert.ok(shipped.length <= 80, `${shipped.length} packages`);
  });

  void it("is locked by its hash, all of it", () => {
    for (const [path, { integrity }] of shipped) {
      assert.match(integrity ?? "", /^sha512-/, path);
    }
  });

  void it("runs nothing when it is installed", async () => {
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

  void it("is told by a bill of materials in CycloneDX", async () => {
    const { stdout } = await runCommand("npm", ["run", "--silent", "sbom"], {
      cwd: PROJECT,
    });
    const bill = JSON.parse(stdout) as {
      readonly bomFormat: string;
      readonly components: readonly {
        readonly name: string;
        readonly group?: string;
        readonly version: string;
        readonly scope: string;
        readonly properties?: readonly { readonly name: string }[];
      }[];
    };
    assert.equal(bill.bomFormat, "CycloneDX");
    // All of the lock file is in it; npm marks what only serves the development.
    const told = bill.components
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
      [...new Set(told)].toSorted(),
      [...new Set(expected)].toSorted(),
    );
  });
});
