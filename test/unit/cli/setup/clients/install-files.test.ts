import assert from "node:assert/strict";
import {
  chmod,
  lstat,
  mkdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { ClientConfigFolder } from "../../../../support/client-config.ts";

const CONFIG = {
  listen: "mirror.internal:5000",
  upstreams: { "docker.io": { default: true }, "quay.io": {} },
};
const PODMAN = "/etc/containers/registries.conf.d/entrepot.conf";
const DAEMON = "/etc/docker/daemon.json";
const CONTAINERD = "/etc/containerd/config.toml";

/** Puts a file below the root. */
async function put(
  { root }: ClientConfigFolder,
  path: string,
  text: string,
): Promise<string> {
  const file = join(root, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
  return file;
}

void describe("entrepot client-config --install", () => {
  for (const engine of [
    "docker",
    "podman",
    "cri-o",
    "containerd",
    "k3s",
    "rke2",
    "buildkit",
  ]) {
    void it(`writes exactly the files that it prints for ${engine}, and nothing the second time`, async (test) => {
      const folder = await ClientConfigFolder.create(test, CONFIG);
      const { code, stdout, stderr } = await folder.install(engine);
      assert.equal(code, 0, stderr);
      const files = await folder.files(engine);
      assert.deepEqual(await folder.installed(), files);
      for (const [path, text] of Object.entries(files)) {
        const file = join(folder.root, path);
        const added = text.replaceAll(/^/gm, "+").replace(/\+$/, "");
        assert.ok(stdout.includes(`--- /dev/null\n+++ ${file}\n${added}`));
        assert.equal((await stat(file)).mode & 0o777, 0o644);
      }
      const again = await folder.install(engine);
      assert.equal(again.code, 0);
      assert.equal(
        again.stdout,
        Object.keys(files)
          .map((path) => `${join(folder.root, path)}: unchanged\n`)
          .join(""),
      );
      // Nothing has to be restarted.
      assert.doesNotMatch(again.stderr, /^then:/m);
      if (engine !== "podman") assert.match(stderr, /^then: systemctl /m);
    });
  }

  void it("replaces its own file after a change, and shows the lines that differ", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    await folder.install("podman", "--upstream", "docker.io");
    const { code, stdout } = await folder.install("podman");
    assert.equal(code, 0);
    const file = join(folder.root, PODMAN);
    assert.ok(stdout.startsWith(`--- ${file}\n+++ ${file}\n # Written by`));
    assert.match(stdout, /^\+prefix = "quay\.io"$/m);
    assert.match(stdout, /^ prefix = "docker\.io"$/m);
    assert.doesNotMatch(stdout, /^-(?!--)/m);
  });

  void it("refuses a file of another author and then writes nothing at all; --force replaces it", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    const path = "/etc/containerd/certs.d/_default/hosts.toml";
    await put(folder, path, "mine\n");
    const { code, stderr } = await folder.install("containerd");
    assert.equal(code, 1);
    assert.match(
      stderr,
      /_default\/hosts\.toml: got a file that this command did not write; expected none, or --force/,
    );
    assert.match(stderr, /^entrepot: nothing was written$/m);
    assert.deepEqual(await folder.installed(), { [path]: "mine\n" });
    const forced = await folder.install("containerd", "--force");
    assert.equal(forced.code, 0, forced.stderr);
    assert.match(forced.stdout, /^-mine$/m);
    assert.deepEqual(
      await folder.installed(),
      await folder.files("containerd"),
    );
  });

  void it("takes a file of another author with the same text for its own", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    const files = await folder.files("k3s");
    for (const [path, text] of Object.entries(files)) {
      await put(folder, path, text);
    }
    const { code, stdout } = await folder.install("k3s");
    assert.equal(code, 0);
    assert.match(stdout, /unchanged/);
  });

  void it("keeps the mode and the other keys of daemon.json, and never replaces an invalid one", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    const file = await put(folder, DAEMON, '{\n  "debug": true\n}\n');
    await chmod(file, 0o600);
    const { code, stdout } = await folder.install("docker");
    assert.equal(code, 0);
    assert.match(stdout, /^ {3}"debug": true$|^-  "debug": true$/m);
    assert.deepEqual(JSON.parse(await readFile(file, "utf8")), {
      debug: true,
      "registry-mirrors": ["http://mirror.internal:5000"],
      "insecure-registries": ["mirror.internal:5000"],
    });
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    await writeFile(file, "{,}");
    for (const force of [[], ["--force"]]) {
      const refused = await folder.install("docker", ...force);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /got invalid JSON; expected a JSON object/);
      assert.equal(await readFile(file, "utf8"), "{,}");
    }
  });

  void it("adds one key to config.toml of containerd, and writes nothing if its form leaves the place open", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    const file = await put(folder, CONTAINERD, "version = 2\n# mine\n");
    const { code, stdout, stderr } = await folder.install("containerd");
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^ # mine\n\+\n\+\[plugins\."io\.containerd\.grpc\.v1\.cri"/m,
    );
    assert.match(stderr, /^then: systemctl restart containerd$/m);
    const again = await folder.install("containerd");
    assert.match(again.stdout, /config\.toml: unchanged/);
    await rm(folder.root, { recursive: true });
    const older = "version = 1\n";
    await put(folder, CONTAINERD, older);
    const refused = await folder.install("containerd", "--force");
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /got version 1; expected these lines:\n\[plugins/,
    );
    assert.equal(await readFile(file, "utf8"), older);
    assert.deepEqual(Object.keys(await folder.installed()), [CONTAINERD]);
  });

  void it("follows no symbolic link, and replaces no folder", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    const target = join(folder.path, "target");
    await writeFile(target, "mine\n");
    const file = await put(folder, PODMAN, "");
    for (const prepare of [
      async () => symlink(target, file),
      async () => symlink(`${target}-missing`, file),
      async () => mkdir(file),
    ]) {
      await rm(file, { recursive: true, force: true });
      await prepare();
      const before = await lstat(file);
      const { code, stderr } = await folder.install("podman", "--force");
      assert.equal(code, 1);
      assert.match(stderr, /got .+; expected a regular file/);
      assert.equal((await lstat(file)).ino, before.ino);
    }
    assert.equal(await readFile(target, "utf8"), "mine\n");
  });

  void it("reports a folder that cannot be made, with exit code 1", async (test) => {
    const folder = await ClientConfigFolder.create(test, CONFIG);
    await writeFile(folder.root, "a file");
    const { code, stderr } = await folder.install("k3s");
    assert.equal(code, 1);
    assert.match(stderr, /^entrepot: .*(?:EEXIST|ENOTDIR)/m);
  });
});
