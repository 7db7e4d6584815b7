import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
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

/** What validates itself against the schema that Kubernetes publishes. */
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

const mirror = find(StatefulSet, "entrepot").spec;
const pod = mirror?.template.spec;
const [container] = pod?.containers ?? [];
const writer = find(DaemonSet, "containerd-hosts").spec?.template.spec;

void describe("deploy/kubernetes", () => {
  for (const manifest of manifests) {
    const { kind, metadata } = manifest;
    void it(`${kind} ${metadata.name} is what its schema says`, () => {
      const Kind = MODELS[kind];
      assert.ok(Kind, kind);
      new Kind(manifest as never).validate();
    });
  }

  void it("is what was promised", () => {
    assert.deepEqual(
      [...new Set(manifests.map(({ kind }) => kind))].toSorted(),
      Object.keys(MODELS),
    );
  });

  void it("shows no variables of other services to either (ENTREPOT_PORT would be one)", () => {
    assert.equal(pod?.enableServiceLinks, false);
    assert.equal(writer?.enableServiceLinks, false);
  });

  void it("runs the mirror as the image's user, with nothing to write but its cache", () => {
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

  void it("shows secrets to the mirror's group and nobody else, or they would be refused", () => {
    const volume = pod?.volumes?.find(({ name }) => name === "secrets");
    assert.equal(volume?.secret?.defaultMode, 0o440);
    const { fsGroup, runAsGroup } = pod?.securityContext ?? {};
    assert.equal(fsGroup, runAsGroup);
    const mount = container?.volumeMounts?.find(
      ({ name }) => name === "secrets",
    );
    assert.equal(mount?.readOnly, true);
  });

  void it("gives the mirror longer than its drain to stop", () => {
    assert.ok((pod?.terminationGracePeriodSeconds ?? 0) > 30);
  });

  void it("leads services and policies to the mirror's pods and ports", () => {
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

  void it("has a configuration without a fault", async (test) => {
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
    assert.ok(writer?.containers[0]?.command?.[2]?.includes(`:${nodePort}`));
  });
});
