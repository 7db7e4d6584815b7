/** The upstream that holds `library/` and to which names without a registry belong. */
export const DOCKER_HUB = "docker.io";

/** Where Docker Hub's registry API is: docker.io itself answers no `/v2/`. */
export const DOCKER_HUB_ENDPOINT = "https://registry-1.docker.io";

/** Names under which engines and old references know Docker Hub. */
export const DOCKER_HUB_ALIASES: readonly string[] = [
  "index.docker.io",
  "registry-1.docker.io",
];

/** Mirrored where the configuration has no `upstreams` key; the first is the default upstream. */
export const WELL_KNOWN_UPSTREAMS: readonly string[] = [
  DOCKER_HUB,
  "quay.io",
  "ghcr.io",
  "gcr.io",
  "registry.k8s.io",
  "mcr.microsoft.com",
  "public.ecr.aws",
  "registry.access.redhat.com",
  "registry.redhat.io",
  "registry.gitlab.com",
  "nvcr.io",
  "docker.elastic.co",
];
