import { buildkitSetup } from "./buildkit-setup.ts";
import type { ClientSetup } from "./client-setup.ts";
import { containerdSetup } from "./containerd-setup.ts";
import { crioSetup, podmanSetup } from "./containers-setup.ts";
import { dockerSetup } from "./docker-setup.ts";
import type { MirrorForClients } from "./mirror-for-clients.ts";
import { k3sSetup, rke2Setup } from "./rancher-setup.ts";

interface Engine {
  /** Whether it can be kept from asking the registry itself, as `--only` demands. */
  readonly canBeOnly: boolean;
  readonly setUp: (mirror: MirrorForClients, isOnly: boolean) => ClientSetup;
}

/** The engines of `client-config`. */
export const ENGINES: ReadonlyMap<string, Engine> = new Map([
  ["docker", { canBeOnly: false, setUp: dockerSetup }],
  ["podman", { canBeOnly: true, setUp: podmanSetup }],
  ["cri-o", { canBeOnly: true, setUp: crioSetup }],
  ["containerd", { canBeOnly: true, setUp: containerdSetup }],
  ["k3s", { canBeOnly: true, setUp: k3sSetup }],
  ["rke2", { canBeOnly: true, setUp: rke2Setup }],
  ["buildkit", { canBeOnly: false, setUp: buildkitSetup }],
]);
