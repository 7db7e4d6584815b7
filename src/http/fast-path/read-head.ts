import type { ManifestAnswer } from "../../mirror/manifests/manifest-answers.ts";
import type { RoutedRepository } from "../../mirror/upstream-routes.ts";
import type { Reference } from "../../oci/reference.ts";
import type { AskedHead } from "../registry/exchange.ts";
import type { RequestTarget } from "../registry/request-target.ts";
import { manifestHead } from "../registry/send-content.ts";

/** A request for a manifest, as Node's parser read it from the bytes of its head. */
export interface ReadRequest {
  readonly asked: RequestTarget;
  /** As it stands in the path. */
  readonly repository: string;
  readonly reference: Reference;
  readonly host: string | undefined;
  readonly isHead: boolean;
  /** For the log. */
  readonly told: AskedHead;
  /** Of the body that was sent when it was read: what is kept here counts for so much. */
  readonly bodyBytes: number;
}

/** What was read, and the answer that was made for it last. */
export class ReadHead {
  readonly request: ReadRequest;
  #last: LastAnswer | undefined;

  constructor(request: ReadRequest) {
    this.request = request;
  }

  /**
   * Status line, headers and body, a character for each byte (`latin1`).
   *
   * It is put together anew when anything in it is another than before, which is once a second where
   * the same is asked for all the time: the system takes a text that was sent before without joining
   * its pieces, in two thirds of the time.
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
      isAlike(last.manifest, manifest)
    ) {
      return last.text;
    }
    const text = this.#format(routed, manifest, ending);
    this.#last = { routed, manifest, ageSeconds, ending, text };
    return text;
  }

  #format(
    routed: RoutedRepository,
    manifest: ManifestAnswer,
    ending: string,
  ): string {
    const { bytes } = manifest;
    const head = manifestHead(routed, manifest);
    head.push("Content-Length", bytes.length);
    let text = "HTTP/1.1 200 OK\r\n";
    // Every value is of a grammar that fits a header; see the types of `manifestHead`.
    for (let i = 0; i < head.length; i += 2) {
      text += `${head[i]}: ${head[i + 1]}\r\n`;
    }
    text += ending;
    return this.request.isHead ? text : text + bytes.toString("latin1");
  }
}

/** A text, and all that it was made of. */
interface LastAnswer {
  readonly routed: RoutedRepository;
  readonly manifest: ManifestAnswer;
  readonly ageSeconds: number;
  readonly ending: string;
  readonly text: string;
}

/** But for the age. */
function isAlike(one: ManifestAnswer, other: ManifestAnswer): boolean {
  return (
    one.bytes === other.bytes &&
    one.digest === other.digest &&
    one.mediaType === other.mediaType &&
    one.status.text === other.status.text &&
    one.isStale === other.isStale
  );
}
