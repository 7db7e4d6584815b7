import assert from "node:assert/strict";
import { before, describe, it, type TestContext } from "node:test";
import { ClientFolder } from "../support/engines/client-folder.ts";
import {
  type HostedRegistry,
  startGuardedRegistry,
  startOpenRegistry,
} from "../support/engines/hosted-registry.ts";
import {
  fetchNewerClients,
  type NewerClients,
} from "../support/engines/newer-clients.ts";
import { refusal, runCommand } from "../support/run-command.ts";

interface Scene {
  readonly client: ClientFolder;
  readonly registry: HostedRegistry;
  readonly host: string;
  /** `["--plain-http"]` for a registry without TLS. */
  readonly plainHttp: readonly string[];
}

interface ClientCase {
  readonly name: string;
  /** Logs in, as its user does. */
  readonly login: (
    scene: Scene,
    user: string,
    password: string,
  ) => Promise<unknown>;
  /** A write, which must be refused without a log-in. */
  readonly push: (scene: Scene) => Promise<unknown>;
  /** Reads, attaches, lists and deletes what was pushed. */
  readonly use: (scene: Scene) => Promise<void>;
}

const DIGEST = /sha256:[0-9a-f]{64}/;

const CLIENTS: readonly ClientCase[] = [
  {
    name: "crane",
    login: async ({ client, host }, user, password) =>
      client.run("crane", "auth", "login", host, "-u", user, "-p", password),
    push: pushByCrane,
    use: useCrane,
  },
  {
    name: "oras",
    login: async ({ client, host, plainHttp }, user, password) =>
      client.run(
        "oras",
        "login",
        ...plainHttp,
        `--username=${user}`,
        `--password=${password}`,
        host,
      ),
    push: pushByOras,
    use: useOras,
  },
  {
    name: "regctl",
    login: async ({ client, host }, user, password) =>
      client.run(
        "regctl",
        "registry",
        "login",
        `--user=${user}`,
        `--pass=${password}`,
        host,
      ),
    push: pushByRegctl,
    use: useRegctl,
  },
  {
    name: "helm",
    login: async ({ client, host, plainHttp }, user, password) =>
      client.run(
        "helm",
        "registry",
        "login",
        ...plainHttp,
        `--username=${user}`,
        `--password=${password}`,
        host,
      ),
    push: pushByHelm,
    use: useHelm,
  },
  {
    name: "cosign",
    login: async ({ client, host }, user, password) =>
      client.run("cosign", "login", "-u", user, "-p", password, host),
    push: pushByCosign,
    use: useCosign,
  },
];

void describe("clients of artifacts", () => {
  let clients: NewerClients;

  before(async () => {
    clients = await fetchNewerClients();
  });

  const startScene = async (
    test: TestContext,
    registry: HostedRegistry,
  ): Promise<Scene> => {
    test.after(() => {
      if (!test.passed) test.diagnostic(registry.mirror.child.output());
    });
    const client = await ClientFolder.create(test, clients, registry);
    await client.write("hello.txt", "hello\n");
    await runCommand("tar", ["-cf", "layer.tar", "hello.txt"], {
      cwd: client.dir,
    });
    const { host, guard } = registry;
    const plainHttp = guard === undefined ? ["--plain-http"] : [];
    return { client, registry, host, plainHttp };
  };

  for (const { name, login, push, use } of CLIENTS) {
    void it(`${name} pushes, pulls, lists, attaches and deletes over plain HTTP`, async (test) => {
      const scene = await startScene(test, await startOpenRegistry(test));
      await push(scene);
      await use(scene);
    });

    void it(`${name} does the same over TLS after a log-in, and is refused before`, async (test) => {
      const registry = await startGuardedRegistry(test);
      const scene = await startScene(test, registry);
      const { user, password } = registry.guard;
      assert.match(await refusal(push(scene)), /unauthorized|401|credential/i);
      // Some clients store a log-in without a test of it.
      await login(scene, user, "wrong").catch(() => undefined);
      assert.match(await refusal(push(scene)), /unauthorized|401|credential/i);
      await login(scene, user, password);
      await push(scene);
      await use(scene);
    });
  }
});

async function pushByCrane({ client, host }: Scene): Promise<string> {
  return client.run(
    "crane",
    "append",
    "--oci-empty-base",
    "--new_layer=layer.tar",
    `--new_tag=${host}/team/app:1`,
  );
}

async function useCrane({ client, host }: Scene): Promise<void> {
  const crane = async (...args: readonly string[]): Promise<string> =>
    (await client.run("crane", ...args)).trim();
  const app = `${host}/team/app`;
  await crane("copy", `${app}:1`, `${host}/other/app:2`);
  assert.equal(
    await crane("digest", `${app}:1`),
    await crane("digest", `${host}/other/app:2`),
  );
  await crane("tag", `${app}:1`, "latest");
  assert.deepEqual((await crane("ls", app)).split("\n").sort(), [
    "1",
    "latest",
  ]);
  assert.equal(await crane("catalog", host), "other/app\nteam/app");
  await crane("pull", `${app}:latest`, "pulled.tar");
  await crane("validate", `--remote=${app}:1`);
  const config = await crane("config", `${app}:1`);
  assert.match(config, /"rootfs"/);

  await crane("index", "append", `--manifest=${app}:1`, `--tag=${app}:multi`);
  assert.match(await crane("manifest", `${app}:multi`), /"manifests"/);

  await crane("delete", `${host}/other/app:2`);
  await refusal(crane("digest", `${host}/other/app:2`));
  await crane("delete", `${app}@${await crane("digest", `${app}:multi`)}`);
  assert.deepEqual((await crane("ls", app)).split("\n").sort(), [
    "1",
    "latest",
  ]);
}

async function pushByOras(scene: Scene): Promise<string> {
  return scene.client.run(
    "oras",
    "push",
    ...scene.plainHttp,
    "--artifact-type=application/vnd.example.text",
    `${scene.host}/team/text:1`,
    "hello.txt:text/plain",
  );
}

async function useOras({ client, host, plainHttp }: Scene): Promise<void> {
  const oras = async (
    command: string,
    ...args: readonly string[]
  ): Promise<string> =>
    client.run("oras", ...command.split(" "), ...plainHttp, ...args);
  const text = `${host}/team/text`;
  await client.write("sbom.json", "{}");
  const attached = await oras(
    "attach",
    "--artifact-type=application/vnd.example.sbom",
    `${text}:1`,
    "sbom.json:application/json",
  );
  const [referrer = ""] = DIGEST.exec(attached.split("Digest:")[1] ?? "") ?? [];
  const discover = async (type: string): Promise<string> =>
    oras("discover", "--format=json", `--artifact-type=${type}`, `${text}:1`);
  assert.ok(
    (await discover("application/vnd.example.sbom")).includes(referrer),
  );
  assert.ok(!(await discover("application/vnd.other")).includes(referrer));
  // The registry has the referrers API: no tag stands in for it.
  assert.equal((await oras("repo tags", text)).trim(), "1");
  assert.equal((await oras("repo ls", host)).trim(), "team/text");

  await oras("pull", "--output=out", `${text}:1`);
  assert.equal(await client.read("out/hello.txt"), "hello\n");
  await oras("tag", `${text}:1`, "2");
  const copyHttp =
    plainHttp.length > 0 ? ["--from-plain-http", "--to-plain-http"] : [];
  const copy = `${host}/copy/text:2`;
  await client.run("oras", "copy", "-r", ...copyHttp, `${text}:2`, copy);
  assert.equal((await oras("repo ls", host)).trim(), "copy/text\nteam/text");

  await oras("manifest delete", "--force", `${text}@${referrer}`);
  assert.ok(
    !(await discover("application/vnd.example.sbom")).includes(referrer),
  );
  await oras("manifest delete", "--force", `${text}:1`);
  await refusal(oras("pull", `${text}:1`));
}

async function pushByRegctl(scene: Scene): Promise<string> {
  const { client, host, plainHttp } = scene;
  if (plainHttp.length > 0) {
    await client.run("regctl", "registry", "set", "--tls=disabled", host);
  }
  return client.run(
    "regctl",
    "artifact",
    "put",
    "--artifact-type=application/vnd.example.text",
    "--file=hello.txt",
    `${host}/team/text:1`,
  );
}

async function useRegctl({ client, host }: Scene): Promise<void> {
  const regctl = async (...args: readonly string[]): Promise<string> =>
    client.run("regctl", ...args);
  const text = `${host}/team/text`;
  await regctl(
    "artifact",
    "put",
    "--artifact-type=application/vnd.example.sbom",
    "--file=hello.txt",
    `--subject=${text}:1`,
  );
  assert.match(
    await regctl("artifact", "list", `${text}:1`),
    /application\/vnd\.example\.sbom/,
  );
  assert.equal(await regctl("artifact", "get", `${text}:1`), "hello\n");
  await regctl(
    "image",
    "copy",
    "--referrers",
    `${text}:1`,
    `${host}/copy/text:1`,
  );
  assert.match(
    await regctl("artifact", "list", `${host}/copy/text:1`),
    /application\/vnd\.example\.sbom/,
  );
  assert.equal(await regctl("repo", "ls", host), "copy/text\nteam/text\n");
  await regctl("image", "copy", `${text}:1`, `${text}:2`);
  assert.equal(await regctl("tag", "ls", text), "1\n2\n");
  // It deletes the tag alone; the manifest stays.
  const digest = (await regctl("image", "digest", `${text}:1`)).trim();
  await regctl("tag", "delete", `${text}:1`);
  assert.equal(await regctl("tag", "ls", text), "2\n");
  await regctl("manifest", "get", `${text}@${digest}`);
  await regctl("manifest", "delete", `${text}@${digest}`);
  assert.equal(await regctl("tag", "ls", text), "");
  await refusal(regctl("manifest", "get", `${text}@${digest}`));
}

async function pushByHelm(scene: Scene): Promise<string> {
  const { client, host, plainHttp } = scene;
  await client.run("helm", "create", "chart");
  await client.run("helm", "package", "chart");
  return client.run(
    "helm",
    "push",
    ...plainHttp,
    "chart-0.1.0.tgz",
    `oci://${host}/charts`,
  );
}

async function useHelm({ client, host, plainHttp }: Scene): Promise<void> {
  const chart = `oci://${host}/charts/chart`;
  await client.run("helm", "pull", ...plainHttp, chart, "--destination=home");
  assert.ok((await client.read("home/chart-0.1.0.tgz")).length > 1_000);
  const shown = await client.run("helm", "show", "chart", ...plainHttp, chart);
  assert.match(shown, /^version: 0\.1\.0$/m);
}

async function pushByCosign(scene: Scene): Promise<string> {
  return pushByCrane(scene);
}

async function useCosign(scene: Scene): Promise<void> {
  const { client, host, plainHttp } = scene;
  const http = plainHttp.length > 0 ? ["--allow-http-registry"] : [];
  const cosign = async (
    command: string,
    ...args: readonly string[]
  ): Promise<string> => client.run("cosign", command, ...http, ...args);
  await client.run("cosign", "generate-key-pair");
  // Neither a log of signatures nor a time-stamping authority: the key alone.
  await client.run("cosign", "signing-config", "create", "--out=signing.json");
  const app = `${host}/team/app`;
  const image = `${app}@${(await client.run("crane", "digest", `${app}:1`)).trim()}`;
  const sign = ["--yes", "--key=cosign.key", "--signing-config=signing.json"];
  const verify = ["--key=cosign.pub", "--insecure-ignore-tlog=true"];
  await refusal(cosign("verify", ...verify, image));
  await cosign("sign", ...sign, image);
  assert.match(
    await cosign("verify", ...verify, image),
    /docker-manifest-digest/,
  );
  await client.write("predicate.json", '{"built": "here"}');
  await cosign(
    "attest",
    ...sign,
    "--predicate=predicate.json",
    "--type=custom",
    image,
  );
  const attested = await cosign(
    "verify-attestation",
    ...verify,
    "--type=custom",
    image,
  );
  assert.match(attested, /payload/);
  assert.match(await cosign("tree", image), DIGEST);
}
