import type { EndpointRequest } from "./endpoint-request.ts";
import type { Answer } from "../wire/exchange.ts";

type ManifestTarget = Pick<EndpointRequest, "repository" | "target">;

/** Chooses the small request of a probe: a HEAD of a manifest that the endpoint served, or its API root. */
export class ProbeTarget {
  /** The manifest that was served last; one that never worked would prove nothing. */
  #manifest: ManifestTarget | undefined;
  #hasHeadFailed = false;
  /** True if a HEAD of a manifest was answered 200, and no GET worked after a HEAD that failed. */
  #isHeadProven = false;

  /** Notes the status of a client's request for a manifest. */
  note({ method, repository, target }: EndpointRequest, status: number): void {
    if (method === "HEAD" && status >= 500) this.#hasHeadFailed = true;
    if (status !== 200) return;
    this.#manifest = { repository, target };
    if (method === "HEAD") {
      this.#isHeadProven = true;
      this.#hasHeadFailed = false;
    } else if (this.#hasHeadFailed) {
      this.#isHeadProven = false;
    }
  }

  /** Sends the request. Some registries answer 5xx to every HEAD although GET works; then the root is used. */
  async ask(how: {
    readonly head: (manifest: ManifestTarget) => Promise<Answer>;
    readonly root: () => Promise<Answer>;
    readonly isThrottled: boolean;
  }): Promise<Answer> {
    if (this.#manifest === undefined || how.isThrottled) return how.root();
    const isProven = this.#isHeadProven;
    const answer = await how.head(this.#manifest);
    return answer.status >= 500 && !isProven ? how.root() : answer;
  }
}
