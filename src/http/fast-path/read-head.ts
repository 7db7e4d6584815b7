import type { ManifestAnswer } from "../../mirror/manifests/manifest-answers.ts";
import type { HostedManifest } from "../../hosted/content/content.ts";
import type { RoutedHosted, RoutedRepository } from "../../routing/routes.ts";
import type { Reference } from "../../oci/reference.ts";
import type { LoggedHead } from "../registry/exchange.ts";
import type { Head } from "../registry/send.ts";
import type { RequestTarget } from "../registry/request-target.ts";
import { manifestHead } from "../registry/send-content.ts";
import { hostedManifestHead } from "../registry/send-hosted.ts";

/** A manifest request, as Node's parser read it from the bytes of its head. */
export interface ReadRequest {
  readonly target: RequestTarget;
  /** As written in the path. */
  readonly repository: string;
  readonly reference: Reference;
  readonly host: string | undefined;
  readonly isHead: boolean;
  readonly logged: LoggedHead;
  /** Size of the body that was sent when the head was read; counts towards the memory limit. */
  readonly bodyBytes: number;
}

/** A parsed head and the last response to it. */
export class ReadHead {
  readonly request: ReadRequest;
  #last: LastAnswer | undefined;
  #lastHosted: LastHosted | undefined;

  constructor(request: ReadRequest) {
    this.request = request;
  }

  /**
   * Returns status line, headers and body, one character for each byte (`latin1`).
   *
   * Builds the text again only if a part of it has changed: once a second under load, for `Date`. A
   * string that was written before is already flat, and takes two thirds of the time.
   *
   * @param ending the headers that Node adds, and the empty line
   */
  answer(
    routed: RoutedRepository,
    manifest: ManifestAnswer,
    ending: string,
  ): string {
    const ageSeconds = Math.floor((manifest.ageMs ?? -1) / 1000);
    const last = this.#last;
    if (
      last !== undefined &&
      last.ending === ending &&
      last.ageSeconds === ageSeconds &&
      last.routed === routed &&
      isSameExceptAge(last.manifest, manifest)
    ) {
      return last.text;
    }
    const head = manifestHead(routed, manifest);
    const text = this.#format(head, manifest.bytes, ending);
    this.#last = { routed, manifest, ageSeconds, ending, text };
    return text;
  }

  /** Returns the response of a hosted manifest, in the form of {@link answer}. */
  answerHosted(
    routed: RoutedHosted,
    manifest: HostedManifest,
    ending: string,
  ): string {
    const last = this.#lastHosted;
    if (
      last !== undefined &&
      last.ending === ending &&
      last.routed === routed &&
      last.manifest.bytes === manifest.bytes &&
      last.manifest.digest === manifest.digest &&
      last.manifest.mediaType === manifest.mediaType
    ) {
      return last.text;
    }
    const head = hostedManifestHead(routed, manifest);
    const text = this.#format(head, manifest.bytes, ending);
    this.#lastHosted = { routed, manifest, ending, text };
    return text;
  }

  #format(head: Head, bytes: Buffer, ending: string): string {
    head.push("Content-Length", bytes.length);
    let text = "HTTP/1.1 200 OK\r\n";
    // Every value is valid in a header; see the types of the heads.
    for (let i = 0; i < head.length; i += 2) {
      text += `${head[i]}: ${head[i + 1]}\r\n`;
    }
    text += ending;
    return this.request.isHead ? text : text + bytes.toString("latin1");
  }
}

/** A response text and everything that it was built from. */
interface LastAnswer {
  readonly routed: RoutedRepository;
  readonly manifest: ManifestAnswer;
  readonly ageSeconds: number;
  readonly ending: string;
  readonly text: string;
}

interface LastHosted {
  readonly routed: RoutedHosted;
  readonly manifest: HostedManifest;
  readonly ending: string;
  readonly text: string;
}

function isSameExceptAge(one: ManifestAnswer, other: ManifestAnswer): boolean {
  return (
    one.bytes === other.bytes &&
    one.digest === other.digest &&
    one.mediaType === other.mediaType &&
    one.status.text === other.status.text &&
    one.isStale === other.isStale
  );
}
