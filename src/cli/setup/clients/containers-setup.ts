import {
  type ClientFile,
  type ClientSetup,
  markedFile,
} from "./client-setup.ts";
import type { ClientRegistry, MirrorForClients } from "./mirror-for-clients.ts";

/** Podman, Buildah and Skopeo read their files at each pull. */
export function podmanSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
): ClientSetup {
  return containersSetup(mirror, isOnly, undefined);
}

export function crioSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
): ClientSetup {
  return containersSetup(mirror, isOnly, "systemctl reload crio");
}

function containersSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
  restart: string | undefined,
): ClientSetup {
  const { scheme, host, ca, registries, hostedNames } = mirror;
  const insecure = scheme === "http" ? "insecure = true\n" : "";
  const nameable = registries.filter(hasPathName);
  const sections = [
    ...nameable.map((registry) =>
      isOnly
        ? remapped(registry.name, `${host}/${registry.pathName}`, insecure)
        : mirrored(registry, `${host}/${registry.pathName}`, insecure),
    ),
    // Pulls only: the engines push to the name itself, which may have no address.
    ...hostedNames
      .filter((name) => !name.includes(":"))
      .map((name) => remapped(name, `${host}/${name}`, insecure)),
    ...(scheme === "http"
      ? [`[[registry]]\nlocation = "${host}"\n${insecure}`]
      : []),
  ];
  const file = "/etc/containers/registries.conf.d/entrepot.conf";
  const files: ClientFile[] = [markedFile(file, sections.join("\n"), restart)];
  if (ca !== undefined) {
    files.push(markedFile(`/etc/containers/certs.d/${host}/ca.crt`, ca));
  }
  return { files, notes: containersNotes(mirror) };
}

type Nameable = ClientRegistry & { readonly pathName: string };

function hasPathName(registry: ClientRegistry): registry is Nameable {
  return registry.pathName !== undefined;
}

/** The registry itself is the last resort. */
function mirrored(
  { name, server }: ClientRegistry,
  location: string,
  insecure: string,
): string {
  const isPlain = server.startsWith("http://") ? "insecure = true\n" : "";
  return `[[registry]]
prefix = "${name}"
location = "${name}"
${isPlain}
[[registry.mirror]]
location = "${location}"
${insecure}`;
}

function remapped(name: string, location: string, insecure: string): string {
  return `[[registry]]
prefix = "${name}"
location = "${location}"
${insecure}`;
}

function containersNotes({
  host,
  registries,
  templates,
  hostedNames,
  needsClientCertificate,
  needsLogin,
}: MirrorForClients): readonly string[] {
  const notes: string[] = [];
  const unnamed = [
    ...registries.filter((one) => !hasPathName(one)).map(({ name }) => name),
    ...hostedNames.filter((name) => name.includes(":")),
  ];
  for (const name of unnamed) {
    notes.push(
      `${name} is left out, because a port cannot be written in a path; give it an alias: upstreams."${name}".aliases`,
    );
  }
  for (const name of hostedNames.filter((one) => !one.includes(":"))) {
    notes.push(
      `Podman and CRI-O map ${name} for pulls only; push to ${host}/${name}/NAME:TAG`,
    );
  }
  for (const template of templates) {
    notes.push(
      `registries of the template ${template} are left out, because Podman and CRI-O have no pattern that keeps the registry's name; name them by --upstream`,
    );
  }
  if (needsClientCertificate) {
    notes.push(
      `the mirror requires a client certificate: /etc/containers/certs.d/${host}/client.cert and client.key`,
    );
  }
  if (needsLogin) {
    notes.push(`the mirror requires a log-in: podman login ${host}`);
  }
  return notes;
}
