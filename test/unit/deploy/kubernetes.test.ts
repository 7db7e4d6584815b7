import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { DaemonSet } from "kubernetes-models/apps/v1/DaemonSet";
import { StatefulSet } from "kubernetes-models/apps/v1/StatefulSet";
import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicy";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1/PodDisruptionBudget";
import { ConfigMap } from "kubernetes-models/v1/ConfigMap";
import { Namespace } from "kubernetes-models/v1/Namespace";
import { Service } from "kubernetes-models/v1/Service";
import { parseAllDocuments } from "yaml";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";
import { Child } from "../../support/child-process.ts";
import { type AfterTest, tempDir } from "../../support/temp-dir.ts";
import { parseSimpleToml } from "../../support/simple-toml.ts";

const FOLDER = join(import.meta.dirname, "../../../deploy/kubernetes");
const DOCKERFILE = await readFile(
  join(import.meta.dirname, "../../../Dockerfile"),
  "utf8",
);

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** An object that validates itself against the schema that Kubernetes publishes. */
type Model = new (manifest: never) => { validate(): void };

const MODELS: Readonly<Record<string, Model>> = {
  ConfigMap,
  DaemonSet,
  Namespace,
  NetworkPolicy,
  PodDisruptionBudget,
  Service,
  StatefulSet,
};

const manifests: Manifest[] = [];
for (const name of await readdir(FOLDER)) {
  const text = await readFile(join(FOLDER, name), "utf8");
  for (const document of parseAllDocuments(text)) {
    assert.deepEqual(document.errors, [], name);
    manifests.push(document.toJS() as Manifest);
  }
}

function find<T extends object>(
  Kind: new (data?: never) => T,
  name: string,
): T {
  const manifest = manifests.find(
    (one) => one.kind === Kind.name && one.metadata.name === name,
  );
  assert.ok(manifest, `${Kind.name} ${name}`);
  return new Kind(manifest as never);
}

const MIRROR_TEXT = await readFile(join(FOLDER, "entrepot.yaml"), "utf8");
/** Written by another author, and names the mirror as well. */
const FOREIGN = '[host."http://10.0.0.1:30500"]\n';

/** Returns the text of a file as soon as it exists. */
async function written(file: string): Promise<string> {
  for (let left = 400; ; left--) {
    try {
      return await readFile(file, "utf8");
    } catch (error) {
      if (left === 0) throw error;
      await delay(25);
    }
  }
}

const mirror = find(StatefulSet, "entrepot").spec;
const pod = mirror?.template.spec;
const [container] = pod?.containers ?? [];
const writer = find(DaemonSet, "containerd-hosts").spec?.template.spec;

void describe("deploy/kubernetes", () => {
  for (const manifest of manifests) {
    const { kind, metadata } = manifest;
    void it(`${kind} ${metadata.name} conforms to its schema`, () => {
      const Kind = MODELS[kind];
      assert.ok(Kind, kind);
      new Kind(manifest as never).validate();
    });
  }

  void it("consists of the documented objects", () => {
    assert.deepEqual(
      [...new Set(manifests.map(({ kind }) => kind))].toSorted(),
      Object.keys(MODELS),
    );
  });

  void it("passes no variables of other services to the containers (ENTREPOT_PORT would be one)", () => {
    assert.equal(pod?.enableServiceLinks, false);
    assert.equal(writer?.enableServiceLinks, false);
  });

  void it("runs the mirror as the image's user, which can write only its cache", () => {
    const [, user] = /^USER (\d+):\d+$/m.exec(DOCKERFILE) ?? [];
    const { securityContext } = pod ?? {};
    assert.equal(String(securityContext?.runAsUser), user);
    assert.equal(securityContext?.runAsNonRoot, true);
    assert.equal(securityContext.seccompProfile?.type, "RuntimeDefault");
    assert.deepEqual(container?.securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    assert.ok(container.resources?.limits?.["memory"]);
    const writable = (container.volumeMounts ?? []).filter(
      ({ readOnly }) => readOnly !== true,
    );
    const [, cache] = /^VOLUME (\S+)$/m.exec(DOCKERFILE) ?? [];
    assert.deepEqual(
      writable.map(({ mountPath }) => mountPath),
      [cache, "/tmp"],
    );
    assert.equal(pod?.automountServiceAccountToken, false);
  });

  void it("mounts secrets so that only the mirror's group can read them", () => {
    const volume = pod?.volumes?.find(({ name }) => name === "secrets");
    assert.equal(volume?.secret?.defaultMode, 0o440);
    const { fsGroup, runAsGroup } = pod?.securityContext ?? {};
    assert.equal(fsGroup, runAsGroup);
    const mount = container?.volumeMounts?.find(
      ({ name }) => name === "secrets",
    );
    assert.equal(mount?.readOnly, true);
  });

  void it("gives the mirror more time to stop than its drain takes", () => {
    assert.ok((pod?.terminationGracePeriodSeconds ?? 0) > 30);
  });

  void it("selects the mirror's pods and ports in services and policies", () => {
    const labels = mirror?.template.metadata?.labels;
    const names = container?.ports?.map(({ name }) => name);
    for (const name of ["entrepot", "entrepot-operator"]) {
      const service = find(Service, name).spec;
      assert.deepEqual(service?.selector, labels);
      for (const { targetPort } of service?.ports ?? []) {
        assert.ok(names?.includes(String(targetPort)));
      }
    }
    const policy = find(NetworkPolicy, "entrepot").spec;
    assert.deepEqual(policy?.podSelector?.matchLabels, labels);
    assert.deepEqual(
      find(PodDisruptionBudget, "entrepot").spec?.selector?.matchLabels,
      labels,
    );
    assert.deepEqual(mirror?.selector.matchLabels, labels);
  });

  void it("has a configuration that the mirror accepts", async (test) => {
    const text = find(ConfigMap, "entrepot").data?.["entrepot.yaml"] ?? "";
    const folder = await makeConfigFolder(test);
    assert.deepEqual(printedFaults(await folder.loadText(text)), []);
  });

  void it("points every node's containerd at the port of the service", () => {
    const nodePort = find(Service, "entrepot").spec?.ports?.[0]?.nodePort;
    const { data } = find(ConfigMap, "containerd-hosts");
    assert.deepEqual(Object.keys(data ?? {}), ["docker.io", "_default"]);
    for (const text of Object.values(data ?? {})) {
      const hosts = parseSimpleToml(text);
      assert.ok(text.includes(`[host."http://NODE:${nodePort}"]`));
      assert.ok(hosts);
    }
    const env = writer?.containers[0]?.env?.[0];
    assert.equal(env?.valueFrom?.fieldRef?.fieldPath, "status.hostIP");
  });

  void it("preserves client addresses at the node port", () => {
    const service = find(Service, "entrepot").spec;
    assert.equal(service?.type, "NodePort");
    assert.equal(service?.externalTrafficPolicy, "Local");
  });

  void it("states in its header what its rules permit", () => {
    const head = (MIRROR_TEXT.split("\napiVersion:", 1)[0] ?? "")
      .replaceAll(/\n# ?/g, " ")
      .replaceAll(/ +/g, " ");
    const policy = find(NetworkPolicy, "entrepot").spec;
    const service = find(Service, "entrepot").spec?.ports?.[0];
    const [registry, operator, ...otherIngress] = policy?.ingress ?? [];
    assert.deepEqual(otherIngress, []);
    assert.equal(registry?.from, undefined);
    assert.match(head, /registry API accepts every client that reaches it/);
    assert.ok(head.includes(`the service's port ${service?.port},`));
    assert.ok(head.includes(`at port ${service?.nodePort} of that node`));
    const from = operator?.from?.map(({ namespaceSelector }) =>
      Object.values(namespaceSelector?.matchLabels ?? {}),
    );
    assert.deepEqual(from, [["monitoring"]]);
    assert.match(head, /accepts pods of the namespace monitoring only/);
    const [names, registries, ...otherEgress] = policy?.egress ?? [];
    assert.deepEqual(otherEgress, []);
    assert.deepEqual(
      names?.to?.map(({ namespaceSelector }) =>
        Object.values(namespaceSelector?.matchLabels ?? {}),
      ),
      [["kube-system"]],
    );
    assert.deepEqual(
      registries?.to?.map(({ ipBlock }) => [ipBlock?.cidr, ipBlock?.except]),
      [
        ["0.0.0.0/0", ["169.254.0.0/16"]],
        ["::/0", ["fe80::/10"]],
      ],
    );
    assert.deepEqual(registries?.ports, [{ port: 443 }]);
    assert.match(
      head,
      /reach the name servers in kube-system, and port 443 of every address except link-local ones/,
    );
  });

  void it("has commented rules for NodeLocal DNS, private registries, a proxy and the nodes' network that are valid when uncommented", () => {
    // Prose begins with a letter, a rule with a dash, a key of this place or more spaces.
    const text = MIRROR_TEXT.replaceAll(/^( +)# (?=- | |from:)/gm, "$1");
    const [policy] = parseAllDocuments(text)
      .map((document) => document.toJS() as Manifest)
      .filter(({ kind }) => kind === "NetworkPolicy");
    assert.ok(policy);
    const shown = new NetworkPolicy(policy);
    shown.validate();
    const { ingress, egress } = shown.spec ?? {};
    assert.equal(ingress?.[0]?.from?.[0]?.ipBlock?.cidr, "10.0.0.0/16");
    assert.deepEqual(
      egress?.map(({ to, ports }) => [
        to?.[0]?.ipBlock?.cidr,
        ports?.map(({ port }) => port),
      ]),
      [
        [undefined, [53, 53]],
        ["169.254.20.10/32", [53, 53]],
        ["0.0.0.0/0", [443]],
        ["10.20.0.0/16", [5000]],
        ["10.30.0.10/32", [3128]],
      ],
    );
  });
});

void describe("the DaemonSet of hosts.toml", () => {
  const [, , script = ""] = writer?.containers[0]?.command ?? [];
  const names = ["docker.io", "_default"];

  /** Runs its script on folders of a test's own. */
  async function run(test: AfterTest): Promise<{
    readonly child: Child;
    readonly certs: string;
  }> {
    const [hosts, certs] = [await tempDir(test), await tempDir(test)];
    const { data = {} } = find(ConfigMap, "containerd-hosts");
    for (const [name, text] of Object.entries(data)) {
      await writeFile(join(hosts, name), text);
    }
    const local = script
      .replaceAll("/certs.d", certs)
      .replaceAll("/hosts/", `${hosts}/`);
    const foreign = join(certs, "_default");
    await mkdir(foreign);
    await writeFile(join(foreign, "hosts.toml"), FOREIGN);
    const child = new Child(test, {
      command: "sh",
      args: ["-euc", local],
      env: { NODE: "fd00::1" },
      isWrapper: false,
    });
    return { child, certs };
  }

  void it("writes the files of the ConfigMap, and keeps files of other authors", async (test) => {
    const { certs } = await run(test);
    const text = await written(join(certs, "docker.io/hosts.toml"));
    assert.match(text, /^# Written by the DaemonSet containerd-hosts/);
    assert.match(text, /^\[host\."http:\/\/\[fd00::1\]:30500"\]$/m);
    assert.deepEqual(
      parseSimpleToml(text).get("server"),
      "https://registry-1.docker.io",
    );
    const foreign = join(certs, "_default/hosts.toml");
    assert.equal(await readFile(foreign, "utf8"), FOREIGN);
  });

  void it("removes only the files that it wrote when it ends", async (test) => {
    const { child, certs } = await run(test);
    await written(join(certs, "docker.io/hosts.toml"));
    assert.deepEqual(await child.terminate(), { code: 0, signal: null });
    assert.deepEqual(await readdir(certs), ["_default"]);
    const foreign = join(certs, "_default/hosts.toml");
    assert.equal(await readFile(foreign, "utf8"), FOREIGN);
  });

  void it("loops over the names of the ConfigMap", () => {
    const { data } = find(ConfigMap, "containerd-hosts");
    assert.deepEqual(Object.keys(data ?? {}), names);
    assert.equal(script.split(`for name in ${names.join(" ")}; do`).length, 3);
  });
});
