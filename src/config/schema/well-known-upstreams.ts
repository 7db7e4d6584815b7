/** The upstream of `library/` and of names without a registry. */
export const DOCKER_HUB = "docker.io";

/** The URL of Docker Hub's registry API: docker.io itself does not serve `/v2/`. */
export const DOCKER_HUB_ENDPOINT = "https://registry-1.docker.io";

/** Names of Docker Hub in engines and old references. */
export const DOCKER_HUB_ALIASES: readonly string[] = [
  "index.docker.io",
  "registry-1.docker.io",
];

/** Mirrored if the configuration has no `upstreams` key; the first is the default upstream. */
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
