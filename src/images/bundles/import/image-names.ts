import type { Digest } from "../../../oci/digest.ts";
import {
  parseRepositoryName,
  parseTag,
  referrersTag,
  type RepositoryKey,
  type Tag,
} from "../../../oci/reference.ts";
import { RegistryError } from "../../../oci/errors.ts";
import type { Routes } from "../../../routing/routes.ts";
import {
  type ImageReference,
  imageText,
  parseImageReference,
} from "../../image-reference.ts";
import {
  IMAGE_NAME_ANNOTATION,
  type ImportOptions,
  REF_NAME_ANNOTATION,
} from "../bundle.ts";
import type { BundleEntry } from "./bundle-index.ts";
import { quote, refuseBundle } from "./bundle-refusal.ts";

/** An image of a bundle and the name that it gets. */
export interface NamedImage extends ImageReference {
  readonly entry: BundleEntry;
}

export type NameRoutes = Pick<
  Routes,
  "routeRepository" | "findHosted" | "findUpstream"
>;

/** Of hauler's stores; legacy ones start with `dev.cosignproject.cosign/`. */
const KIND_ANNOTATION = "kind";
/** Signatures that hauler lists under the name of their image, and the ends of the tags that cosign writes. */
const COSIGN_KINDS: ReadonlyMap<string, string> = new Map([
  ["sigs", ".sig"],
  ["atts", ".att"],
  ["sboms", ".sbom"],
]);

type FoundName =
  | { readonly kind: "name"; readonly text: string }
  | { readonly kind: "tag"; readonly tag: Tag }
  | { readonly kind: "cosign"; readonly of: string; readonly suffix: string }
  | { readonly kind: "none" };

/**
 * Decides under which names the images of a bundle are stored. Full names are in
 * `io.containerd.image.name` (docker, containerd, hauler, Entrepot), or in
 * `org.opencontainers.image.ref.name` (podman, buildah, crane); skopeo and oras often write only a tag
 * there, or nothing.
 *
 * @param entries the manifests that need a name: those that are neither children nor referrers of others
 * @throws RegistryError NAME_INVALID for a wrong option; otherwise the bundle is refused
 */
export function nameImages(
  entries: readonly BundleEntry[],
  options: Pick<ImportOptions, "into" | "name">,
  routes: NameRoutes,
): readonly NamedImage[] {
  const into = readInto(options.into, routes);
  const found = entries.map((entry) => ({ entry, name: findName(entry) }));
  const given = giveNames(found, options.name);
  const images = new Map<string, NamedImage>();
  for (const { entry, name } of found) {
    const text = given.get(entry) ?? textOf(entry, name, found);
    const named = resolve(text, entry, routes);
    const target = { ...moveInto(named, into), entry };
    checkRegistry(target, routes);
    const other = images.get(imageText(target));
    if (other !== undefined && other.entry.digest !== entry.digest) {
      throw refuseBundle(
        `got two images named ${imageText(target)}: ${other.entry.digest} and ${entry.digest}; expected one`,
      );
    }
    images.set(imageText(target), target);
  }
  return [...images.values()];
}

/** Returns whether an entry has a name of its own, and so is stored for its own sake. */
export function isNamed(entry: BundleEntry): boolean {
  return findName(entry).kind !== "none";
}

function findName({ annotations }: BundleEntry): FoundName {
  const kind = annotations.get(KIND_ANNOTATION)?.split("/") ?? [];
  if (kind[1]?.startsWith("referrers") === true) return { kind: "none" };
  const full = annotations.get(IMAGE_NAME_ANNOTATION);
  const ref = annotations.get(REF_NAME_ANNOTATION);
  const text = full !== undefined && isFullName(full) ? full : (ref ?? full);
  if (text === undefined || text === "") return { kind: "none" };
  const suffix = COSIGN_KINDS.get(kind[1] ?? "");
  if (suffix !== undefined) return { kind: "cosign", of: text, suffix };
  if (isFullName(text)) return { kind: "name", text };
  const tag = parseTag(text);
  return tag === undefined ? { kind: "name", text } : { kind: "tag", tag };
}

function isFullName(text: string): boolean {
  return /[/:@]/.test(text);
}

interface Found {
  readonly entry: BundleEntry;
  readonly name: FoundName;
}

/** Returns the names that `--name` gives. */
function giveNames(
  found: readonly Found[],
  name: string | undefined,
): ReadonlyMap<BundleEntry, string> {
  if (name === undefined) return new Map();
  const unnamed = found.filter(
    ({ name: { kind } }) => kind === "none" || kind === "tag",
  );
  const [only] = found.length === 1 ? found : unnamed;
  if (only === undefined) {
    throw badOption(
      "name: every image of the bundle has a name; expected one image, or images without a name",
    );
  }
  const tagOf = ({ name: own }: Found): string =>
    own.kind === "tag" ? `:${own.tag}` : "";
  const isWhole = /[:@][^/]*$/.test(name);
  if (found.length === 1 || unnamed.length === 1) {
    return new Map([[only.entry, isWhole ? name : `${name}${tagOf(only)}`]]);
  }
  if (isWhole || unnamed.some(({ name: own }) => own.kind === "none")) {
    throw badOption(
      `name: the bundle has ${unnamed.length} images without a name; expected one, ` +
        "or a repository without a tag and images that have a tag each",
    );
  }
  return new Map(unnamed.map((each) => [each.entry, `${name}${tagOf(each)}`]));
}

/** @throws RegistryError if the image has no name */
function textOf(
  entry: BundleEntry,
  name: FoundName,
  all: readonly Found[],
): string {
  switch (name.kind) {
    case "name":
      return name.text;
    case "cosign":
      return cosignName(entry, name, all);
    case "tag":
    case "none": {
      const has = name.kind === "tag" ? `only the tag ${name.tag}` : "no name";
      throw refuseBundle(
        `image ${entry.digest} has ${has}; give it one with --name registry/repository:tag`,
      );
    }
    default:
      return name satisfies never;
  }
}

/** Returns the name under which cosign looks for signatures of an image. */
function cosignName(
  { digest }: BundleEntry,
  { of, suffix }: FoundName & { readonly kind: "cosign" },
  all: readonly Found[],
): string {
  const image = all.find(
    ({ name }) => name.kind === "name" && name.text === of,
  );
  if (image === undefined) {
    throw refuseBundle(
      `signature ${digest} is of ${quote(of)}, which the bundle does not have`,
    );
  }
  const repository = of.replace(/[:@][^/]*$/, "");
  return `${repository}:${referrersTag(image.entry.digest)}${suffix}`;
}

function resolve(
  text: string,
  { digest }: BundleEntry,
  routes: NameRoutes,
): ImageReference {
  // A name with a tag and a digest is stored under its tag.
  const both = /^(.+:[^/@]+)@(.+)$/.exec(text);
  const named = parseImageReference(both?.[1] ?? text, routes);
  if (named === undefined) {
    throw refuseBundle(
      `image ${digest}: got the name ${quote(text)}; expected registry/repository:tag, ` +
        "see --name",
    );
  }
  const pinned: string | undefined =
    named.reference.kind === "digest" ? named.reference.digest : both?.[2];
  if (pinned !== undefined && pinned !== digest) {
    throw refuseBundle(
      `image ${digest}: got the name ${quote(text)}, which has another digest`,
    );
  }
  return named;
}

/** @throws RegistryError NAME_INVALID */
function readInto(
  into: string | undefined,
  routes: NameRoutes,
): { readonly registry: string; readonly path: string } | undefined {
  if (into === undefined) return undefined;
  const slashAt = into.indexOf("/");
  const registry = slashAt === -1 ? into : into.slice(0, slashAt);
  const path = slashAt === -1 ? "" : into.slice(slashAt + 1);
  if (routes.findHosted(registry) === undefined) {
    throw badOption(
      `into: got ${quote(into)}; expected a hosted registry and a path, for example local/team`,
    );
  }
  if (path !== "" && parseRepositoryName(path) === undefined) {
    throw badOption(
      `into: got the path ${quote(path)}; expected lower-case names and slashes`,
    );
  }
  return { registry, path };
}

function moveInto(
  image: ImageReference,
  into: ReturnType<typeof readInto>,
): ImageReference {
  if (into === undefined) return image;
  const { repository } = image.key;
  const moved = parseRepositoryName(
    into.path === "" ? repository : `${into.path}/${repository}`,
  );
  if (moved === undefined) {
    throw badOption(`into: the name of ${imageText(image)} would be too long`);
  }
  const key: RepositoryKey = { upstream: into.registry, repository: moved };
  return { key, reference: image.reference };
}

/** @throws RegistryError if no client could pull the image */
function checkRegistry(image: ImageReference, routes: NameRoutes): void {
  const { upstream } = image.key;
  if (
    routes.findHosted(upstream) === undefined &&
    routes.findUpstream(upstream) === undefined
  ) {
    throw refuseBundle(
      `image ${quote(imageText(image))}: ${quote(upstream)} is neither an upstream nor a hosted registry; ` +
        "add it to the configuration, or use --into or --name",
    );
  }
}

function badOption(detail: string): RegistryError {
  return new RegistryError("NAME_INVALID", {
    message: "an option of the import is not valid",
    detail,
  });
}

/** Names the digest of an entry and what it is called, for messages. */
export function describeImage(image: NamedImage): string {
  const { reference } = image;
  const digest: Digest = image.entry.digest;
  return reference.kind === "digest"
    ? imageText(image)
    : `${imageText(image)} (${digest})`;
}
