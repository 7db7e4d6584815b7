import type { RoutedHosted } from "../../routing/routes.ts";
import type { UploadTargetPath } from "../../oci/path.ts";
import type { HostedManifest } from "../../hosted/content/content.ts";
import type { Sender } from "../../hosted/hosted.ts";
import type { Reference } from "../../oci/reference.ts";
import { type Call, hostedOf, type RepositoryTarget } from "./call.ts";
import { deleteContent, putManifest } from "./hosted-writes.ts";
import { ManifestBodyReader } from "./read-manifest-body.ts";
import { MethodRefusal } from "./refusals.ts";
import {
  type HostedReads,
  pullOfManifest,
  sendHostedBlob,
  sendHostedManifest,
  sendHostedReferrers,
  sendHostedTags,
} from "./send-hosted.ts";

/** Answers a request for the uploads of a hosted repository. */
export type AnswerUpload = (
  call: Call,
  routed: RoutedHosted,
  target: UploadTargetPath,
) => Promise<void>;

export interface HostedRoutesOptions extends HostedReads {
  readonly answerUpload: AnswerUpload;
}

/** Answers requests for hosted repositories: route and method decide which. */
export class HostedRoutes {
  readonly #options: HostedRoutesOptions;
  readonly #bodies = new ManifestBodyReader();

  constructor(options: HostedRoutesOptions) {
    this.#options = options;
  }

  /**
   * Returns a manifest in memory, for a response without a {@link Call}. Asks the index each time, so
   * that a push or a deletion is in effect for the next request.
   *
   * @param maxBytes larger manifests are not returned
   */
  recall(
    routed: RoutedHosted,
    reference: Reference,
    {
      isHead,
      maxBytes,
    }: { readonly isHead: boolean; readonly maxBytes: number },
    sender: Sender,
  ): HostedManifest | undefined {
    const { content, events } = this.#options;
    const repository = hostedOf(routed);
    const manifest = content.recallManifest(repository, reference, isHead);
    if (manifest === undefined || isHead) return manifest;
    if (manifest.bytes.length > maxBytes) return undefined;
    events(pullOfManifest(repository, reference, manifest, sender));
    return manifest;
  }

  /**
   * @returns undefined if the response has been sent
   * @throws RegistryError, MethodRefusal, UnsatisfiedRange, synchronously or in the promise
   */
  answer(
    call: Call,
    routed: RoutedHosted,
    target: RepositoryTarget,
  ): Promise<void> | undefined {
    const { content, answerUpload } = this.#options;
    const { method } = call.request;
    const isRead = method === "GET" || method === "HEAD";
    switch (target.kind) {
      case "manifest":
        if (isRead) {
          return sendHostedManifest(
            this.#options,
            call,
            routed,
            target.reference,
          );
        }
        if (method === "PUT") {
          return putManifest(content, this.#bodies, call, routed, target);
        }
        if (method === "DELETE") {
          return deleteContent(content, call, routed, target);
        }
        throw new MethodRefusal("GET, HEAD, PUT, DELETE");
      case "blob":
        if (isRead)
          return sendHostedBlob(this.#options, call, routed, target.digest);
        if (method === "DELETE") {
          return deleteContent(content, call, routed, target);
        }
        throw new MethodRefusal("GET, HEAD, DELETE");
      case "tags":
        if (!isRead) throw new MethodRefusal("GET, HEAD");
        return sendHostedTags(content, call, routed, target);
      case "referrers":
        if (!isRead) throw new MethodRefusal("GET, HEAD");
        return sendHostedReferrers(content, call, routed, target);
      case "upload":
        return answerUpload(call, routed, target);
      default:
        return target satisfies never;
    }
  }
}
