import type { HostedContent } from "../../hosted/content/content.ts";
import type { RoutedHosted } from "../../routing/routes.ts";
import type { UploadTargetPath } from "../../oci/path.ts";
import type { Call, RepositoryTarget } from "./call.ts";
import { MethodRefusal } from "./refusals.ts";
import {
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

export interface HostedRoutesOptions {
  readonly content: HostedContent;
  readonly answerUpload: AnswerUpload;
}

/** Answers requests for hosted repositories: route and method decide which. */
export class HostedRoutes {
  readonly #options: HostedRoutesOptions;

  constructor(options: HostedRoutesOptions) {
    this.#options = options;
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
          return sendHostedManifest(content, call, routed, target.reference);
        }
        throw new MethodRefusal("GET, HEAD");
      case "blob":
        if (isRead) return sendHostedBlob(content, call, routed, target.digest);
        throw new MethodRefusal("GET, HEAD");
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
