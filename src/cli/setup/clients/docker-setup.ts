import { hostOf, mergeDaemonJson } from "./daemon-json.ts";
import {
  type ClientFile,
  type ClientSetup,
  markedFile,
} from "./client-setup.ts";
import type { MirrorForClients } from "./mirror-for-clients.ts";

const DAEMON_JSON = "/etc/docker/daemon.json";
const RELOAD = "systemctl reload docker";

/** dockerd mirrors Docker Hub only, and always falls back to it. */
export function dockerSetup(mirror: MirrorForClients): ClientSetup {
  const { scheme, host, ca, hubUrl } = mirror;
  const hubHost = hubUrl === undefined ? undefined : hostOf(hubUrl);
  const hosts = [
    ...new Set([host, ...(hubHost === undefined ? [] : [hubHost])]),
  ];
  const keys = {
    mirrors: hubUrl === undefined ? [] : [hubUrl],
    insecure: scheme === "http" ? hosts : [],
    hosts,
  };
  const files: ClientFile[] = [];
  if (keys.mirrors.length + keys.insecure.length > 0) {
    files.push({
      path: DAEMON_JSON,
      text: mergeDaemonJson(undefined, keys).text,
      merge: (current) => mergeDaemonJson(current, keys),
      restart: RELOAD,
    });
  }
  if (ca !== undefined) {
    for (const name of hosts) {
      files.push(markedFile(`/etc/docker/certs.d/${name}/ca.crt`, ca));
    }
  }
  return { files, notes: dockerNotes(mirror, hosts) };
}

function dockerNotes(
  { host, ca, hubUrl, registries, ...mirror }: MirrorForClients,
  hosts: readonly string[],
): readonly string[] {
  const notes: string[] = [];
  const other = registries.find(({ name }) => name !== "docker.io");
  if (other !== undefined) {
    notes.push(
      `Docker mirrors Docker Hub only; pull images of other registries by the mirror's name: ${host}/${other.pathName ?? "REGISTRY"}/NAME`,
    );
  }
  if (hubUrl !== undefined && new URL(hubUrl).pathname !== "/") {
    notes.push(
      "Docker Hub is not the default registry of this mirror: the path in registry-mirrors needs Docker 25 or later, and older ones do not start with it; upstreams.docker.io.hostnames gives Docker Hub a host name of its own",
    );
  }
  if (ca !== undefined) {
    notes.push(
      "with the containerd image store, the default since Docker 29, dockerd does not read /etc/docker/certs.d for a mirror: add the certificate to the system's authorities too",
    );
  }
  if (mirror.needsClientCertificate) {
    notes.push(
      `the mirror requires a client certificate: ${hosts.map((name) => `/etc/docker/certs.d/${name}/client.cert and client.key`).join(", ")}`,
    );
  }
  if (mirror.needsLogin) {
    notes.push(
      "the mirror requires a log-in, which dockerd cannot send to a mirror: admit its network by access.anonymousNetworks; for pulls by the mirror's own name: docker login " +
        host,
    );
  }
  return notes;
}
